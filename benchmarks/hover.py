"""Claims checked over three hops of retrieval: HoVer, as in Table 7 of arXiv:2604.03677.

    python -m benchmarks.hover --data DIR --limit 50 --lm embedded --json FILE

The program is HoverMultiHop as LangProBe publishes it (7 passages in each of three hops, 21 in all), plus a
verdict step, which no public program has: that step is a reconstruction. The release has two labels, not
the paper's three. Of the dev split (train was not to be had) the claims of --hops hops whose gold passages
are all in the corpus; a tenth of the source questions (`hpqa_id`: claims of one question share passages) is
for tuning. The corpus is closed (gold passages of all claims, and distractors): recall is far above that on
all of Wikipedia. A run that failed (an answer that cannot be parsed, a prompt too long) is unscored:
counted, and left out of the means; `calls` are the metric calls that tuning spent. With --resume FOLDER a
run that was cut short goes on from its journals.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

import dspy

from benchmarks.checks import check_enough, parsed
from benchmarks.hover_program import MEASURES, HoverMultiHop, measures
from benchmarks.measuring import measured_runs
from benchmarks.passages import read_passages
from benchmarks.report import write_json
from benchmarks.retrieval import Claim, gold, read_claims
from benchmarks.tuning import Tuning, add_arguments, lm_of, tuned
from dspy_diffusion_infill.prompts.compact import CompactAdapter
from dspy_diffusion_infill.search.fingerprint import digest
from dspy_diffusion_infill.search.journal import Journal, open_journal

PAPER = {
    "Public": (0.560, 0.268, 0.435),
    "FS": (0.556, 0.279, 0.550),
    "RO": (0.533, 0.163, 0.503),
    "FS+RO": (0.547, 0.211, 0.604),
}
"""Recall, F1 and label accuracy of LLaDA, 16 shots, as the paper's Table 7 prints them."""


class Measured:
    """One of the measures as metric; all of them as its feedback, which journals keep.

    Args:
        measure: The one that is optimized.
    """

    def __init__(self, measure: str) -> None:
        self.measure = measure

    def __call__(
        self,
        example: dspy.Example,
        found: dspy.Prediction,
        trace: object = None,
        pred_name: object = None,
        pred_trace: object = None,
    ) -> dspy.Prediction:
        """Measure one claim."""
        values = measures(example, found)
        return dspy.Prediction(score=values[self.measure], feedback=json.dumps(values))


def example(claim: Claim) -> dspy.Example:
    """A claim as an example."""
    return dspy.Example(claim=claim["claim"], gold=sorted(gold(claim)), label=claim["label"]).with_inputs(
        "claim"
    )


def split(claims: Sequence[Claim]) -> tuple[list[Claim], list[Claim]]:
    """A tenth of the source questions for tuning, the rest to measure, in a fixed random order."""
    questions = list(dict.fromkeys(claim["hpqa_id"] for claim in claims))
    Random("hover").shuffle(questions)
    tenth = set(questions[: len(questions) // 10])
    shuffled = Random("hover claims").sample(claims, len(claims))
    dev = [claim for claim in shuffled if claim["hpqa_id"] in tenth]
    return dev, [claim for claim in shuffled if claim["hpqa_id"] not in tenth]


def measure(
    program: HoverMultiHop | None,
    examples: Sequence[dspy.Example],
    role: str,
    threads: int,
    journal: Journal | None,
) -> dict[str, Any]:
    """Means over the claims that ran, and how many did not.

    Raises:
        EvaluationError: If the LM is down; run again with the same --resume folder to go on.
    """
    runs = measured_runs(program, Measured("recall"), examples, role, threads, journal)
    ran = [json.loads(run.feedback) for run in runs if run.feedback is not None]
    means = {name: fmean(values[name] for values in ran) if ran else None for name in MEASURES}
    return {"n": len(examples), "unscored": len(examples) - len(ran), **means}


def run(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Tune by every method and seed; measure each on the same claims."""
    dev, test = split([claim for claim in read_claims(options.data) if claim["num_hops"] == options.hops])
    shown = [example(claim) for claim in test[: options.limit]]
    check_enough("Claims for tuning", dev, options.shots)
    check_enough("Claims to measure on", test)
    embedded = options.lm == "embedded"
    program = HoverMultiHop(
        read_passages(options.data, distractors=True), words=options.words, reasoning=not embedded
    )
    lm = lm_of(options.lm, options.api_base, max_tokens=16 if embedded else 512)
    tuning = Tuning(
        metric=Measured(options.optimize),
        infiller=options.infiller,
        proposer=dspy.LM(options.proposer) if options.proposer else None,
        budget=options.budget,
        threads=options.threads,
        folder=options.resume,
    )
    about = {
        "claims": digest([dict(one) for one in shown]),
        "LM": digest([lm.model, lm.kwargs, options.words]),
    }
    rows = []
    with (
        dspy.context(lm=lm, adapter=CompactAdapter() if embedded else dspy.ChatAdapter()),
        open_journal(options.resume, about, resume=True) as journal,
    ):
        for seed in options.seeds:
            shots = [example(claim) for claim in Random(seed).sample(dev, options.shots)]
            for method in options.methods:
                better = tuned(program, method, shots, tuning, seed)
                found = measure(better.program, shown, f"{method}/{seed}", options.threads, journal)
                row = {"lm": options.lm, "method": method, "seed": seed, **better.told}
                rows.append({**row, **found})
                print(_line(rows[-1]), flush=True)
    return rows


def _line(row: Mapping[str, Any]) -> str:
    values = "".join(f"{'-' if row[name] is None else format(row[name], '.3f'):>10}" for name in MEASURES)
    name = f"{row['lm']} {row['method']} {row['seed']}"
    counts = f"{row['n']:>6}{row['unscored'] / row['n']:>9.1%}{values}{row['metric_calls']:>8}"
    return f"{name:<34}{counts}  {row['failed'] or ''}".rstrip()


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="folder of hover_dev.jsonl and hover_wiki*.jsonl"
    )
    parser.add_argument("--lm", default="embedded", help="'embedded', or a model's name")
    parser.add_argument("--api-base", help="of the vLLM server that holds the LM")
    parser.add_argument("--optimize", choices=MEASURES, default="recall")
    parser.add_argument("--hops", type=int, default=3)
    parser.add_argument("--words", type=int, help="of each passage that are shown (8 for the embedded LM)")
    parser.add_argument("--limit", type=int, help="claims to measure on (all)")
    add_arguments(parser)
    options = parsed(parser, arguments)
    if options.words is None and options.lm == "embedded":
        options.words = 8
    logging.getLogger("dspy").setLevel(logging.WARNING)
    started = time.monotonic()
    print(f"{'':<34}{'n':>6}{'unscored':>9}" + "".join(f"{name:>10}" for name in MEASURES) + f"{'calls':>8}")
    rows = run(options)
    print("\nThe paper's own numbers, Table 7 (LLaDA; its corpus, claims and measures are not published):")
    for name, (recall, f1, label) in PAPER.items():
        print(f"  {name:<47}{recall:>10.3f}{'':>10}{f1:>10.3f}{label:>10.3f}")
    if options.json:
        write_json(options.json, rows=rows, bars={}, seeds=options.seeds, started=started)


if __name__ == "__main__":
    main()
