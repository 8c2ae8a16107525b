"""Wikipedia introductions behind BM25: what the HoVer benchmark retrieves from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import bm25s
import Stemmer

K1, B = 0.9, 0.4
"""As in GEPA's artifact and DSPy's tutorials."""
GOLD, DISTRACTORS = "hover_wiki.jsonl", "hover_wiki_distractors.jsonl"


class Passages:
    """Titles found by BM25 over title and text, with English stems and without stop words.

    Args:
        passages: Title and text of each.

    Example:
        >>> corpus = Passages([("Rain", "Water that falls."), ("Sun", "A star that shines.")])
        >>> corpus.search(["shining stars"], k=1)
        [['Sun']]
    """

    def __init__(self, passages: Iterable[tuple[str, str]]) -> None:
        rows = list(passages)
        self.titles = [title for title, _ in rows]
        self.texts = dict(rows)
        self._stemmer = Stemmer.Stemmer("english")
        self._index = bm25s.BM25(k1=K1, b=B)
        self._index.index(self._tokens([f"{title} | {text}" for title, text in rows]), show_progress=False)

    def __deepcopy__(self, memo: dict[int, object]) -> Passages:
        """Copies of a program share the index."""
        return self

    def search(self, queries: Sequence[str], k: int) -> list[list[str]]:
        """The titles of the best passages for each query, the best first."""
        found, _ = self._index.retrieve(
            self._tokens(queries), k=min(k, len(self.titles)), show_progress=False, n_threads=1
        )
        return [[self.titles[number] for number in row] for row in found.tolist()]

    def _tokens(self, texts: Sequence[str]) -> bm25s.tokenization.Tokenized:
        tokens = bm25s.tokenize(list(texts), stopwords="en", stemmer=self._stemmer, show_progress=False)
        assert isinstance(tokens, bm25s.tokenization.Tokenized)  # lists only if asked for
        return tokens


def read_passages(folder: Path, *, distractors: bool) -> Passages:
    """The gold passages of HoVer's dev split, and those that are gold for no claim."""
    rows = []
    for name in (GOLD, DISTRACTORS) if distractors else (GOLD,):
        with (folder / name).open(encoding="utf-8") as lines:
            rows += [(row["title"], row["text"]) for row in map(json.loads, lines)]
    return Passages(rows)
