"""Whether a rubric infilled by one model helps another: SummEval, as in Figures 4b and 5 of arXiv:2604.03677.

    python -m benchmarks.transfer --models PUBLIC RO FS FS+RO --json FILE

Each diffusion LM infills the judge's prompt for itself, as infiller and as judge (Sec. 5.2); then every model
judges the same records with every prompt, its own and the others'. Records, split, shots and target are those
of `benchmarks.summeval`, whose options are these as well. With --resume FOLDER a run that was cut short goes
on from its journals.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Sequence
from random import Random
from typing import Any, cast

import dspy

from benchmarks import summeval
from benchmarks.checks import check_enough
from benchmarks.report import write_json
from benchmarks.summeval import Results, example, judges, read_jsonl, split
from benchmarks.tables import plain_row, row_lines
from dspy_diffusion_infill.engine.lm import DiffusionLM
from dspy_diffusion_infill.judges.agreement import Judged
from dspy_diffusion_infill.judges.grading import grade
from dspy_diffusion_infill.judges.prometheus import Judge
from dspy_diffusion_infill.search.fingerprint import digest
from dspy_diffusion_infill.search.journal import open_journal

PAPER = {"RO": (0.511, 0.465), "FS": (0.429, 0.487), "Public": (0.288, 0.087)}
"""Spearman of a judge with the prompt that FS+RO infilled, and with its own, as the paper's Sec. 5.2 says."""

Prompts = dict[str, Judge]
"""Judges by who infilled their prompt; `nobody` for the prompt as it was."""


def judge_of(name: str, tokens: int) -> dspy.BaseLM:
    """A diffusion LM as judge: "embedded", a path or a hub id."""
    return DiffusionLM(name, max_tokens=tokens)


def identity(name: str, tokens: int) -> list[Any]:
    """Of a model as judge: its checkpoint and how it answers."""
    lm = judge_of(name, tokens)
    return [name, lm.model, lm.kwargs]


def infilled(options: argparse.Namespace, name: str, shots: Sequence[dspy.Example], seed: int) -> Prompts:
    """A model's own prompts, before and after it infilled them for itself."""
    folder = options.resume and options.resume / digest(name)
    own = argparse.Namespace(
        **{**vars(options), "infiller": name, "methods": ["baseline", "infill"], "resume": folder}
    )
    with dspy.context(lm=judge_of(name, options.tokens)):
        return {
            name if method == "infill" else "nobody": cast(Judge, better.program)
            for method, better in judges(own, shots, seed)
        }


def run(options: argparse.Namespace) -> Results:
    """Let every model judge with every prompt."""
    dev, test = split(read_jsonl(options.data))
    check_enough("Records for tuning", dev, options.shots)
    check_enough("Records to judge", test)
    test = test[: options.limit]
    shown = [example(record, options.dimension) for record in test]
    about = {
        "records": digest([dict(one) for one in shown]),
        "judges": digest([identity(name, options.tokens) for name in options.models]),
        "judging": digest([options.template, options.conversation, options.samples]),
    }
    found: Results = {}
    with open_journal(options.resume, about, resume=True) as journal:
        for seed in options.seeds:
            shots = [example(one, options.dimension) for one in Random(seed).sample(dev, options.shots)]
            prompts: Prompts = {}
            for name in options.models:
                prompts |= infilled(options, name, shots, seed)
            for name in options.models:
                for infiller, judge in prompts.items():
                    role = f"{name}/{infiller}/{seed}"
                    with dspy.context(lm=judge_of(name, options.tokens)):
                        scores = grade(judge, shown, role=role, num_threads=options.threads, journal=journal)
                    found[name, options.template, f"infilled by {infiller}", str(seed), options.dimension] = [
                        Judged(record["doc_id"], one.score, score)
                        for record, one, score in zip(test, shown, scores, strict=True)
                    ]
    return found


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line: that of `benchmarks.summeval`, with models in place of one judge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, add_help=False
    )
    parser.add_argument("--models", nargs="+", default=["embedded"], help="'embedded', paths or hub ids")
    parser.add_argument("--tokens", type=int, default=6, help="of a reply")
    parser.add_argument("-h", "--help", action="store_true")
    ours, rest = parser.parse_known_args(arguments)
    if ours.help:
        parser.print_help()
        rest = ["--help"]
    theirs = summeval.parse([*rest, "--judge", ours.models[0]])
    return argparse.Namespace(**{**vars(theirs), **vars(ours)})


def main(arguments: Sequence[str] | None = None) -> None:
    """Judge, and print the table."""
    options = parse(arguments)
    logging.getLogger("dspy").setLevel(logging.WARNING)
    started = time.monotonic()
    found = run(options)
    rows: list[dict[str, Any]] = [
        plain_row(names, judged, options.resamples) for names, judged in found.items()
    ]
    for line in row_lines(rows):
        print(line)
    print("\nThe paper's own numbers, Sec. 5.2 (Spearman; with FS+RO's prompt, with the judge's own):")
    for name, (given, own) in PAPER.items():
        print(f"  {name:<10}{given:>8.3f}{own:>8.3f}")
    if options.json:
        write_json(options.json, rows=rows, bars={}, seeds=options.seeds, started=started)


if __name__ == "__main__":
    main()
