"""Grade-school mathematics and the length of the prompt: GSM8K, as in the paper's Table 1, Figures 4a and 6.

    python -m benchmarks.gsm8k --data DIR --lm LM --infiller LLADA --in-context --json FILE

The paper (arXiv:2604.03677) lets a diffusion LM fill 128 masks in front of the question, and compares that
with --shots worked examples in the prompt (--in-context). Here those masks come before the instructions, are
filled in sight of the same examples, and a filling stays if it answers more of them (--mask 0: windows of the
instructions instead). Tuned on --shots of train, measured on --limit of test. Right is an answer whose last
number is the reference's. `words` is the length of a whole prompt, in words; `calls` are the metric calls
that tuning spent. A run that failed is unscored: counted, and left out of the accuracy. With --resume FOLDER
a run that was cut short goes on.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

import dspy

from benchmarks.checks import check_enough, parsed
from benchmarks.measuring import ending, measured_runs, text_of
from benchmarks.report import write_json
from benchmarks.tuning import Tuned, Tuning, add_arguments, lm_of, tuned
from dspy_diffusion_infill.prompts.compact import CompactAdapter
from dspy_diffusion_infill.prompts.program import signature_of
from dspy_diffusion_infill.prompts.render import active_adapter
from dspy_diffusion_infill.prompts.templates import Template
from dspy_diffusion_infill.prompts.windows import SlidingWindow
from dspy_diffusion_infill.search.fingerprint import digest
from dspy_diffusion_infill.search.journal import Journal, open_journal

PAPER = {
    "LLaDA 8B, no example": (70.8, None),
    "LLaDA 8B, 16 examples": (73.1, 3333.8),
    "LLaDA 8B, public, infills": (69.8, None),
    "LLaDA 8B, FS+RO, infills": (76.4, 315.8),
    "Dream 7B, no example": (81.0, 65),
    "Dream 7B, 16 examples": (79.3, 4169),
    "Dream 7B, public, infills": (54.3, None),
    "Dream 7B, infilled by FS+RO": (81.3, 463),
}
"""Exact match in percent, and tokens of the prompt where the paper says them."""
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def examples(folder: Path, part: str) -> list[dspy.Example]:
    """The problems of `gsm8k_PART.jsonl`, with worked answer and final number."""
    with (folder / f"gsm8k_{part}.jsonl").open(encoding="utf-8") as lines:
        rows = list(map(json.loads, lines))
    return [
        dspy.Example(question=row["question"], answer=row["answer"], final=row["final_answer"]).with_inputs(
            "question"
        )
        for row in rows
    ]


def last_number(text: str) -> float | None:
    """The last number of a text.

    Example:
        >>> last_number("He has 3 * $1,200 = $3,600.50."), last_number("None.")
        (3600.5, None)
    """
    found = NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None


def solved(
    example: dspy.Example,
    found: dspy.Prediction,
    trace: object = None,
    pred_name: object = None,
    pred_trace: object = None,
) -> dspy.Prediction:
    """Whether the last number is the right one; and which one that is."""
    number = last_number(found.answer)
    right = number is not None and number == last_number(example.final)
    return dspy.Prediction(score=float(right), feedback=f"The answer is {example.final}.")


def num_words(program: dspy.Predict, question: dspy.Example) -> int:
    """Words of a whole prompt: instructions, examples and question, as the LM gets them."""
    messages = active_adapter().format(signature_of(program), program.demos, dict(question.inputs()))
    return sum(len(message["content"].split()) for message in messages)


def measure(
    program: dspy.Predict | None,
    shown: Sequence[dspy.Example],
    role: str,
    threads: int,
    journal: Journal | None,
) -> dict[str, Any]:
    """Accuracy over the problems that ran, how many did not, and the mean length of their prompts.

    Raises:
        EvaluationError: If the LM is down; run again with the same --resume folder to go on.
    """
    runs = measured_runs(program, solved, shown, role, threads, journal)
    scores = [run.score for run in runs if run.score is not None]
    return {
        "n": len(shown),
        "unscored": len(shown) - len(scores),
        "accuracy": fmean(scores) if scores else None,
        "words": None if program is None else round(fmean(num_words(program, example) for example in shown)),
    }


def masking(num_masks: int) -> SlidingWindow | Template:
    """So many masks before the instructions, or windows of them."""
    return Template(f"{{{{mask:{num_masks}}}}}\n{{instructions}}") if num_masks else SlidingWindow()


def programs(
    options: argparse.Namespace, train: Sequence[dspy.Example], seed: int
) -> Iterator[tuple[str, Tuned[dspy.Predict]]]:
    """The program as every method makes it, and with worked examples in its prompt."""
    program = dspy.Predict("question -> answer")
    shots = Random(seed).sample(train, options.shots)
    tuning = Tuning(
        metric=solved,
        infiller=options.infiller,
        proposer=dspy.LM(options.proposer) if options.proposer else None,
        budget=options.budget,
        threads=options.threads,
        folder=options.resume,
        masking=masking(options.mask),
    )
    if options.in_context:
        shown = program.deepcopy()
        shown.demos = [dspy.Example(question=shot.question, answer=shot.answer) for shot in shots]
        yield "in context", Tuned(shown)
    for method in options.methods:
        yield method, tuned(program, method, shots, tuning, seed)


def run(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Tune by every method and seed; measure each on the same problems."""
    train, test = (examples(options.data, part) for part in ("train", "test"))
    check_enough("Problems of train", train, options.shots)
    check_enough("Problems of test", test)
    shown = Random("gsm8k").sample(test, min(options.limit or len(test), len(test)))
    embedded = options.lm == "embedded"
    lm = lm_of(options.lm, options.api_base, max_tokens=16 if embedded else 512)
    about = {"problems": digest([dict(one) for one in shown]), "LM": digest([lm.model, lm.kwargs])}
    rows = []
    with (
        dspy.context(lm=lm, adapter=CompactAdapter() if embedded else dspy.ChatAdapter()),
        open_journal(options.resume, about, resume=True) as journal,
    ):
        for seed in options.seeds:
            for method, better in programs(options, train, seed):
                found = measure(better.program, shown, f"{method}/{seed}", options.threads, journal)
                row = {"lm": options.lm, "method": method, "seed": seed, **better.told}
                rows.append({**row, **found, "instructions": text_of(better.program)})
                print(_line(rows[-1]), flush=True)
    return rows


def _line(row: Mapping[str, Any]) -> str:
    accuracy = "-" if row["accuracy"] is None else format(row["accuracy"], ".3f")
    name = f"{row['lm']} {row['method']} {row['seed']}"
    counts = f"{row['n']:>6}{row['unscored'] / row['n']:>9.1%}{accuracy:>10}{row['words'] or '-':>7}"
    return f"{name:<34}{counts}{ending(row)}"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of gsm8k_train and gsm8k_test.jsonl")
    parser.add_argument("--lm", default="embedded", help="'embedded', or a model's name")
    parser.add_argument("--api-base", help="of the vLLM server that holds the LM")
    parser.add_argument("--limit", type=int, help="problems to measure on (all 1,319)")
    parser.add_argument("--mask", type=int, default=128, help="masks before the instructions")
    parser.add_argument("--in-context", action="store_true", help="also with the shots in the prompt")
    add_arguments(parser)
    options = parsed(parser, arguments)
    logging.getLogger("dspy").setLevel(logging.WARNING)
    started = time.monotonic()
    print(f"{'':<34}{'n':>6}{'unscored':>9}{'accuracy':>10}{'words':>7}{'calls':>8}")
    rows = run(options)
    print("\nThe paper's own numbers (exact match in percent; tokens of the prompt where it says them):")
    for name, (accuracy, tokens) in PAPER.items():
        print(f"  {name:<34}{accuracy:>6}{'-' if tokens is None else tokens:>10}")
    if options.json:
        write_json(options.json, rows=rows, bars={}, seeds=options.seeds, started=started)


if __name__ == "__main__":
    main()
