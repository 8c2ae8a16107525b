"""Whether full-sequence masking unlocks prompt infilling, at a size that two cores can train.

    python -m benchmarks.unlock --json FILE [--seeds 0 1 2 --mix --data DIR --work DIR]

One common start learns unpaired sentences and instructions with full masking, as LLaDA's pretraining does.
From it, once a seed, `public` learns to answer with masks on responses only, the stand-in for a public
checkpoint. From `public`, with equal numbers of updates and the same learning rates: `ro` (more of the same),
`fs` (full sequences), `fsro` (full sequences, then, gently, responses), and `eq2`; with `--mix`, half an hour
more, also `mix` (each row masked one way or the other). `eq2` masks any token, as the paper does. The full
sequences of the others are masked for what the optimizer asks: in 95 of 100 rows no review is masked, and in
60 of 100 with several reviews no answer; the embedded model's recipe found these shares.

Each writes the vague instruction of held-out rating schemes anew from 16 examples; what it wrote is answered
by one fixed task LM (the embedded model), and by itself. Controls: `fsro` on shuffled labels (the mean of
five orders) and without examples, random tokens, the nearest training instruction, and `guess`: what answers
drawn from the right labels at random are worth, which is computed. An instruction that only names the labels
comes to about that. One setting more is tuned, for `fsro`, on held-out schemes that are not reported: the
learning rate of every variant's last third.

Reported a variant: the gap between the vague and the hand-written instruction that it closed, as in
`benchmarks.demo_gap`, of accuracy and of agreement beyond chance, and perplexities of held-out prompts and
responses, both along the refinement too; and the share of stop tokens where a masked instruction is guessed
at once. The figure is written beside the JSON file. Everything done is kept in the work folder, and a run
that was cut short goes on from there; a folder of another task LM, plan or data is refused.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import torch

from benchmarks import DATA
from benchmarks.checks import parsed
from benchmarks.demo_gap import Cell
from benchmarks.report import write_json
from benchmarks.unlock_cells import Scores
from benchmarks.unlock_models import Models, Plan
from benchmarks.unlock_tables import Seed, bars, draw, tables
from benchmarks.work_folder import claim
from dspy_diffusion_infill.search.fingerprint import digest

SENTENCES = "sst5_train.jsonl"
WORK = Path("build/unlock")
BRANCHES = (("fs", "fsro"), ("ro",), ("eq2",), ("mix",))
"""Variants that share no work, once there is `public`; the longer first."""


def run(data: Path, work: Path, plan: Plan, seeds: Sequence[int], task: str) -> tuple[list[Cell], list[Seed]]:
    """Trains every variant, then every cell, printed as it comes, then what the models say of themselves.

    What comes before the branches takes all cores; of the rest, each core takes a part.
    """
    claim(work, about(data, plan, task))
    models = Models(data, work, plan)
    for seed in seeds:
        models.variant("public", seed)
    cells = []
    with ProcessPoolExecutor(mp_context=get_context("spawn"), initializer=_use_one_core) as pool:
        wanted = [branch for branch in BRANCHES if branch[-1] in plan.variants]
        branches = list(product(wanted, seeds))
        list(pool.map(partial(_grow, data, work, plan), branches))
        places = list(product(seeds, range(plan.num_schemes)))
        for cell in pool.map(partial(_cell, data, work, plan, task), places):
            cells.append(cell)
            print(_line(cell), flush=True)
        list(pool.map(partial(_own, data, work, plan, task), list(product(seeds, plan.variants))))
    return cells, [Scores(models, task).seed(seed) for seed in seeds]


def about(data: Path, plan: Plan, task: str) -> dict[str, str]:
    """What all work is of; files say of which seed and variants."""
    sentences = (data / SENTENCES).read_text(encoding="utf-8")
    return {"task": task, "plan": digest(asdict(replace(plan, variants=()))), "data": digest(sentences)}


def _use_one_core() -> None:
    logging.getLogger("dspy").setLevel(logging.ERROR)
    torch.set_num_threads(1)


def _grow(data: Path, work: Path, plan: Plan, branch: tuple[Sequence[str], int]) -> None:
    names, seed = branch
    models = Models(data, work, plan)
    for name in names:
        models.variant(name, seed)


def _cell(data: Path, work: Path, plan: Plan, task: str, place: tuple[int, int]) -> Cell:
    return Scores(Models(data, work, plan), task).cell(*place)


def _own(data: Path, work: Path, plan: Plan, task: str, place: tuple[int, str]) -> None:
    Scores(Models(data, work, plan), task).own(*place)


def _line(cell: Cell) -> str:
    shown = " ".join(f"{name} {value:.2f}" for name, value in cell.scores.items())
    return f"{cell.scheme:<24} seed {cell.seed}  {shown}  {cell.instructions['fsro']!r}"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--json", type=Path, required=True, help="file for the result; its figure is beside it"
    )
    parser.add_argument("--data", type=Path, default=DATA, help=f"folder with {SENTENCES} (%(default)s)")
    parser.add_argument("--work", type=Path, default=WORK, help="folder of models and cells (%(default)s)")
    parser.add_argument("--task", default="embedded", help="the fixed task LM: embedded, or a folder")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--mix", action="store_true", help="train and measure the variant mix too")
    options = parsed(parser, arguments)
    if not (options.data / SENTENCES).is_file():
        parser.error(f"--data must be a folder with {SENTENCES}; got {options.data}. Name that folder.")
    logging.getLogger("dspy").setLevel(logging.ERROR)
    started = time.monotonic()
    plan = Plan(variants=(*Plan().variants, "mix")) if options.mix else Plan()
    cells, seeds = run(options.data, options.work, plan, options.seeds, options.task)
    for line in tables(cells, seeds):
        print(line)
    rows = [asdict(one) for one in (*cells, *seeds)]
    write_json(options.json, rows=rows, bars=bars(cells), seeds=options.seeds, started=started)
    draw(options.json.with_suffix(".svg"), cells, seeds)


if __name__ == "__main__":
    main()
