"""The three-hop program of the HoVer benchmark, and what is measured of a run."""

from __future__ import annotations

from collections.abc import Iterable

import dspy
from dspy.signatures.signature import make_signature

from benchmarks.passages import Passages

MEASURES = ("recall", "all_gold", "f1", "label")
"""Of the gold passages, the share found, and whether all were; F1 of the found titles; the right label."""


class HoverMultiHop(dspy.Module):
    """Retrieve, summarize, ask again, three times over; then a verdict.

    Args:
        passages: What is searched.
        num_passages: A hop.
        words: Of a passage that are shown; None for all.
        reasoning: Whether each step reasons before it answers, as published.
    """

    def __init__(
        self, passages: Passages, *, num_passages: int = 7, words: int | None = None, reasoning: bool = True
    ) -> None:
        super().__init__()
        step = dspy.ChainOfThought if reasoning else dspy.Predict
        self.passages, self.num_passages, self.words = passages, num_passages, words
        self.summarize1 = step("claim, passages -> summary")
        self.create_query_hop2 = step("claim, summary_1 -> query")
        self.summarize2 = step("claim, context, passages -> summary")
        self.create_query_hop3 = step("claim, summary_1, summary_2 -> query")
        self.verify = step(
            make_signature(
                "claim, summary_1, summary_2, passages -> label",
                "Say whether the claim is SUPPORTED or NOT_SUPPORTED by what was found.",
            )
        )

    def forward(self, claim: str) -> dspy.Prediction:
        """Check one claim; `titles` are those of all hops."""
        first = self._search(claim)
        summary_1 = self.summarize1(claim=claim, passages=self._shown(first)).summary
        second = self._search(self.create_query_hop2(claim=claim, summary_1=summary_1).query)
        summary_2 = self.summarize2(claim=claim, context=summary_1, passages=self._shown(second)).summary
        query = self.create_query_hop3(claim=claim, summary_1=summary_1, summary_2=summary_2).query
        third = self._search(query)
        label = self.verify(
            claim=claim, summary_1=summary_1, summary_2=summary_2, passages=self._shown(third)
        ).label
        return dspy.Prediction(titles=[*first, *second, *third], label=label)

    def _search(self, query: str) -> list[str]:
        (titles,) = self.passages.search([query], self.num_passages)
        return titles

    def _shown(self, titles: Iterable[str]) -> str:
        texts = ((title, self.passages.texts[title].split()[: self.words]) for title in titles)
        return "\n".join(f"{title} | {' '.join(words)}" for title, words in texts)


def measures(example: dspy.Example, found: dspy.Prediction) -> dict[str, float]:
    """What is reported of one claim."""
    wanted, titles = set(example.gold), set(found.titles)
    hits = len(wanted & titles)
    return {
        "recall": hits / len(wanted),
        "all_gold": float(hits == len(wanted)),
        "f1": 2 * hits / (len(wanted) + len(titles)),
        "label": float(_label(found.label) == example.label),
    }


def _label(text: str) -> str:
    """One of the two labels, however it was spelled; else the text."""
    return text.strip().strip(".").upper().replace(" ", "_")
