"""Whether full-sequence masking unlocks prompt infilling, at a size that two cores can train.

    python -m benchmarks.unlock --data DIR --work DIR --json FILE [--figure FILE --seeds 0 1 2 --mix]

One common start learns unpaired sentences and instructions with full masking, as LLaDA's pretraining does.
From it, once a seed, `public` learns to answer with masks on responses only, the stand-in for a public
checkpoint. From `public`, with equal numbers of updates and the same learning rates: `ro` (more of the same),
`fs` (full sequences), and `fsro` (full sequences, then, gently, responses); with `--mix`, half an hour more,
also `mix` (each row masked one way or the other). Each writes the vague instruction of held-out rating
schemes anew from 16 examples; what it wrote is answered by one fixed task LM (the embedded model), and by
itself. Controls: `fsro` on shuffled labels and without examples, random tokens, the nearest training
instruction, and `guess`: what answers drawn from the right labels at random are worth, which is computed.
An instruction that only names the labels comes to about that. One setting is tuned, for `fsro`, on held-out
schemes that are not reported: the learning rate of every variant's last third.

Reported a variant: the gap between the vague and the hand-written instruction that it closed, as in
`benchmarks.demo_gap`, of accuracy and of agreement beyond chance; perplexities of held-out prompts and
responses, along the refinement too; and the share of stop tokens where a masked instruction is guessed at
once. Everything done is kept in the work folder, and a run that was cut short goes on from there; a
folder of another task LM, plan or data is refused.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from typing import Any

import dspy
import torch

from benchmarks.checks import parsed
from benchmarks.demo_gap import Cell, measured, shuffled
from benchmarks.report import write_json
from benchmarks.tasks import RandomInfiller, WithoutExamples, generated_reviews
from benchmarks.unlock_models import Models, Plan, conversations, stop_share
from benchmarks.unlock_tables import Seed, bars, draw, tables
from benchmarks.work_folder import claim
from dspy_diffusion_infill import DiffusionLM
from dspy_diffusion_infill.demo import ANSWER_TOKENS, infill, score, split
from dspy_diffusion_infill.engine.infiller import DiffusionInfiller
from dspy_diffusion_infill.engine.model import load
from dspy_diffusion_infill.prompts.canvas import Infiller
from dspy_diffusion_infill.prompts.last_line import LastLineAdapter
from dspy_diffusion_infill.prompts.program import instructions_of
from dspy_diffusion_infill.search.fingerprint import digest
from dspy_diffusion_infill.training.monitor import HeldOut
from dspy_diffusion_infill.training.schemes import (
    ORACLE,
    VAGUE,
    Scheme,
    held_out_schemes,
    nearest_training_instruction,
)
from dspy_diffusion_infill.training.start import read_start, read_weights

NONE = "."
"""No instruction: a signature must have one."""
BRANCHES = (("fs", "fsro"), ("ro",), ("mix",))
"""Variants that share no work, once there is `public`; the longer first."""


class Scores:
    """Compiles and scores; every cell is kept in a file, and made once.

    Args:
        models: The variants.
        task: Of the fixed task LM: "embedded", or a folder.
    """

    def __init__(self, models: Models, task: str) -> None:
        self.models = models
        self.task = task
        self.reviews = generated_reviews()

    def cell(self, seed: int, number: int) -> Cell:
        """One seed and held-out scheme, every variant and control, answered by the fixed task LM."""
        path = self.models.work / f"cell-{seed}-{number}-of-{len(self.models.plan.variants)}.json"
        return Cell(**kept(path, lambda: asdict(self._cell(held_out_schemes()[number], seed))))

    def _cell(self, scheme: Scheme, seed: int) -> Cell:
        started = time.monotonic()
        shots, scored = split(self.reviews, scheme, seed)
        oracle = ORACLE.format(worst=scheme.worst, best=scheme.best)
        fillers = {name: self.infiller(name, seed) for name in self.models.plan.variants}
        with self.answering(self.task):
            texts = {"none": NONE, "vague": VAGUE, "oracle": oracle}
            texts["nearest"] = nearest_training_instruction(oracle).text
            texts["random"] = written(shots, seed, RandomInfiller(fillers["fsro"]))
            texts["shuffled"] = written(shuffled(shots, seed), seed, fillers["fsro"])
            texts["no_examples"] = written(shots, seed, WithoutExamples(fillers["fsro"]))
            texts |= {name: written(shots, seed, filler) for name, filler in fillers.items()}
            cell = measured(Cell("generated", scheme.name, seed, texts, {}, {}, 0.0), scored)
        scores, kappas = {**cell.scores, "guess": 1 / len(scheme.labels)}, {**cell.kappas, "guess": 0.0}
        return replace(cell, scores=scores, kappas=kappas, seconds=time.monotonic() - started)

    def infiller(self, variant: str, seed: int) -> DiffusionInfiller:
        """A variant as an infiller."""
        return DiffusionInfiller(load(str(self.models.variant(variant, seed)), device="cpu"))

    def answering(self, model: str) -> Any:
        """DSPy's context with this task LM."""
        return dspy.context(lm=DiffusionLM(model, max_tokens=ANSWER_TOKENS), adapter=LastLineAdapter())

    def own(self, seed: int, variant: str) -> dict[str, float]:
        """What a variant answers by itself, all cells of its seed being done."""
        return kept(self.models.work / f"own-{seed}-{variant}.json", lambda: self._own(seed, variant))

    def _own(self, seed: int, variant: str) -> dict[str, float]:
        found: dict[str, float] = {}
        schemes = held_out_schemes()[: self.models.plan.num_schemes]
        with self.answering(str(self.models.variant(variant, seed))):
            for name, method in (("none", "none"), ("own", variant), ("fsro", "fsro"), ("oracle", "oracle")):
                found[name] = mean(
                    score(self.cell(seed, number).instructions[method], split(self.reviews, scheme, seed)[1])
                    for number, scheme in enumerate(schemes)
                )
        return found

    def seed(self, seed: int) -> Seed:
        """What the models of a seed measured."""
        return Seed(
            seed,
            {name: self.own(seed, name) for name in self.models.plan.variants},
            {name: self._losses(name, seed) for name in self.models.plan.variants},
            {name: self.models.curve(name, seed) for name in self.models.plan.variants},
        )

    def _losses(self, variant: str, seed: int) -> dict[str, float]:
        start = read_start(str(self.models.variant(variant, seed)))
        examples = conversations(start.vocabulary, self.models.plan.held_out)
        model = read_weights(start).eval()
        held_out = HeldOut(examples, start.vocabulary, shift=0, seed=0, num_samples=0)
        return {**held_out(model), "stop_share": stop_share(model, examples, start.vocabulary)}


def kept(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a file holds; made first, if there is none."""
    if not path.is_file():
        unfinished = path.with_suffix(".tmp")
        unfinished.write_text(json.dumps(make()), encoding="utf-8")
        unfinished.replace(path)
    return json.loads(path.read_text(encoding="utf-8"))


def written(shots: Sequence[dspy.Example], seed: int, filler: Infiller) -> str:
    """The instruction that an infiller wrote."""
    return instructions_of(infill(shots, seed, infiller=filler))["self"]


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
        branches = [(names, seed) for seed, names in product(seeds, wanted)]
        list(pool.map(partial(_grow, data, work, plan), branches))
        places = list(product(seeds, range(plan.num_schemes)))
        for cell in pool.map(partial(_cell, data, work, plan, task), places):
            cells.append(cell)
            print(_line(cell), flush=True)
        list(pool.map(partial(_own, data, work, plan, task), list(product(seeds, plan.variants))))
    return cells, [Scores(models, task).seed(seed) for seed in seeds]


def about(data: Path, plan: Plan, task: str) -> dict[str, str]:
    """What all work is of; files say of which seed and variants."""
    sentences = (data / "sst5_train.jsonl").read_text(encoding="utf-8")
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
    parser.add_argument("--data", type=Path, required=True, help="folder with sst5_train.jsonl")
    parser.add_argument("--work", type=Path, required=True, help="folder of models and cells")
    parser.add_argument("--json", type=Path, help="file for the result")
    parser.add_argument("--figure", type=Path, help="file for the figure")
    parser.add_argument("--task", default="embedded", help="the fixed task LM: embedded, or a folder")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--mix", action="store_true", help="train and measure the variant mix too")
    options = parsed(parser, arguments)
    logging.getLogger("dspy").setLevel(logging.ERROR)
    started = time.monotonic()
    plan = Plan(variants=(*Plan().variants, "mix")) if options.mix else Plan()
    cells, seeds = run(options.data, options.work, plan, options.seeds, options.task)
    for line in tables(cells, seeds):
        print(line)
    if options.json:
        rows = [asdict(one) for one in (*cells, *seeds)]
        write_json(options.json, rows=rows, bars=bars(cells), seeds=options.seeds, started=started)
    if options.figure:
        draw(options.figure, cells, seeds)


if __name__ == "__main__":
    main()
