"""Sentiment of sentences, SST-2 and SST-5, as in arXiv:2602.18449: a label's name for a sentence.

    python -m benchmarks.sentiment --data DIR --task sst2 --lm LM --infiller LLADA --json FILE

Tuned on --shots sentences of train, measured on --limit of dev (the test split is not in the folder). The
metric says which label was wanted, so that --condition-on traces shows feedback. A run that failed is
unscored: counted, and left out of the accuracy; `calls` are the metric calls that tuning spent. With --resume
FOLDER a run that was cut short goes on.
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
from typing import Any, get_args

import dspy
from dspy.signatures.signature import make_signature

from benchmarks.checks import check_enough, parsed
from benchmarks.measuring import ending, measured_runs, text_of
from benchmarks.report import write_json
from benchmarks.tuning import Tuning, add_arguments, lm_of, tuned
from dspy_diffusion_infill.prompts.compact import CompactAdapter
from dspy_diffusion_infill.search.fingerprint import digest
from dspy_diffusion_infill.search.journal import Journal, open_journal
from dspy_diffusion_infill.traces import ConditionOn

PAPER = {"sst2": 97, "sst5": 67}
"""Best accuracy in percent that a third party lists for arXiv:2602.18449; of which models is not said."""


def examples(folder: Path, task: str, part: str) -> list[dspy.Example]:
    """The sentences of `TASK_PART.jsonl`, with the names of their labels."""
    with (folder / f"{task}_{part}.jsonl").open(encoding="utf-8") as lines:
        rows = list(map(json.loads, lines))
    return [
        dspy.Example(sentence=row["text"], label=row["label_name"]).with_inputs("sentence") for row in rows
    ]


def labelled(
    example: dspy.Example,
    found: dspy.Prediction,
    trace: object = None,
    pred_name: object = None,
    pred_trace: object = None,
) -> dspy.Prediction:
    """Whether the label is the right one, in any case of letters; and which one that is."""
    right = found.label.strip().strip(".").lower() == example.label.lower()
    return dspy.Prediction(score=float(right), feedback=f"The label is {example.label}.")


def measure(
    program: dspy.Module | None,
    shown: Sequence[dspy.Example],
    role: str,
    threads: int,
    journal: Journal | None,
) -> dict[str, Any]:
    """Accuracy over the sentences that ran, and how many did not.

    Raises:
        EvaluationError: If the LM is down; run again with the same --resume folder to go on.
    """
    runs = measured_runs(program, labelled, shown, role, threads, journal)
    scores = [run.score for run in runs if run.score is not None]
    found = {"n": len(shown), "unscored": len(shown) - len(scores)}
    return {**found, "accuracy": fmean(scores) if scores else None}


def run(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Tune by every method and seed; measure each on the same sentences."""
    train, dev = (examples(options.data, options.task, part) for part in ("train", "dev"))
    check_enough("Sentences of train", train, options.shots)
    check_enough("Sentences of dev", dev)
    shown = Random("sentiment").sample(dev, min(options.limit or len(dev), len(dev)))
    names = ", ".join(sorted({example.label for example in train}))
    program = dspy.Predict(make_signature("sentence -> label", f"Label the sentence: {names}."))
    lm = lm_of(options.lm, options.api_base, max_tokens=16)
    tuning = Tuning(
        metric=labelled,
        infiller=options.infiller,
        proposer=dspy.LM(options.proposer) if options.proposer else None,
        budget=options.budget,
        threads=options.threads,
        folder=options.resume,
        condition_on=options.condition_on,
    )
    about = {"sentences": digest([dict(one) for one in shown]), "LM": digest([lm.model, lm.kwargs])}
    rows = []
    with (
        dspy.context(lm=lm, adapter=CompactAdapter() if options.lm == "embedded" else dspy.ChatAdapter()),
        open_journal(options.resume, about, resume=True) as journal,
    ):
        for seed in options.seeds:
            shots = Random(seed).sample(train, options.shots)
            for method in options.methods:
                better = tuned(program, method, shots, tuning, seed)
                found = measure(better.program, shown, f"{method}/{seed}", options.threads, journal)
                row = {"task": options.task, "lm": options.lm, "method": method, "seed": seed, **better.told}
                text = text_of(better.program)
                rows.append({**row, "condition_on": options.condition_on, **found, "instructions": text})
                print(_line(rows[-1]), flush=True)
    return rows


def _line(row: Mapping[str, Any]) -> str:
    accuracy = "-" if row["accuracy"] is None else format(row["accuracy"], ".3f")
    name = f"{row['lm']} {row['method']} {row['seed']}"
    return f"{name:<34}{row['n']:>6}{row['unscored'] / row['n']:>9.1%}{accuracy:>10}{ending(row)}"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of sst2_*.jsonl and sst5_*.jsonl")
    parser.add_argument("--task", choices=list(PAPER), default="sst2")
    parser.add_argument("--lm", default="embedded", help="'embedded', or a model's name")
    parser.add_argument("--api-base", help="of the vLLM server that holds the LM")
    parser.add_argument("--limit", type=int, help="sentences to measure on (all)")
    parser.add_argument("--condition-on", choices=get_args(ConditionOn), default="traces")
    add_arguments(parser)
    options = parsed(parser, arguments)
    logging.getLogger("dspy").setLevel(logging.WARNING)
    started = time.monotonic()
    print(f"{'':<34}{'n':>6}{'unscored':>9}{'accuracy':>10}{'calls':>8}")
    rows = run(options)
    print(f"\nThe paper's best, as a third party lists it (models not said): {PAPER[options.task]} %")
    if options.json:
        write_json(options.json, rows=rows, bars={}, seeds=options.seeds, started=started)


if __name__ == "__main__":
    main()
