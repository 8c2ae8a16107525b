"""The cells of `benchmarks.unlock`: what each variant and control wrote, and what that is worth."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import mean
from typing import Any

import dspy

from benchmarks.demo_gap import Cell, measured, shuffled
from benchmarks.tasks import RandomInfiller, WithoutExamples, generated_reviews
from benchmarks.unlock_data import conversations, stop_share
from benchmarks.unlock_models import Models
from benchmarks.unlock_tables import Seed
from dspy_diffusion_infill import DiffusionLM
from dspy_diffusion_infill.demo import ANSWER_TOKENS, infill, score, split
from dspy_diffusion_infill.engine.infiller import DiffusionInfiller
from dspy_diffusion_infill.engine.model import load
from dspy_diffusion_infill.prompts.canvas import Infiller
from dspy_diffusion_infill.prompts.last_line import LastLineAdapter
from dspy_diffusion_infill.prompts.program import instructions_of
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
SHUFFLES = 5
"""Times that the labels are shuffled: one order agrees with the right one now more, now less."""


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
        with self.answering(self.task):
            texts = {"none": NONE, "vague": VAGUE, "oracle": oracle}
            texts["nearest"] = nearest_training_instruction(oracle).text
            texts |= controls(shots, seed, infiller(self.models.variant("fsro", seed)))
            texts |= by_models(shots, seed, self.models.checkpoints(seed))
            cell = measured(Cell("generated", scheme.name, seed, texts, {}, {}, 0.0), scored)
        scores = {**averaged(cell.scores), "guess": 1 / len(scheme.labels)}
        kappas = {**averaged(cell.kappas), "guess": 0.0}
        return replace(cell, scores=scores, kappas=kappas, seconds=time.monotonic() - started)

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


def infiller(checkpoint: Path) -> DiffusionInfiller:
    """A model as an infiller."""
    return DiffusionInfiller(load(str(checkpoint), device="cpu"))


def controls(shots: Sequence[dspy.Example], seed: int, filler: DiffusionInfiller) -> dict[str, str]:
    """What is written where something is missing."""
    found = {
        "random": written(shots, seed, RandomInfiller(filler)),
        "no_examples": written(shots, seed, WithoutExamples(filler)),
    }
    for order in range(SHUFFLES):
        found[f"shuffled#{order}"] = written(shuffled(shots, f"{seed}#{order}"), seed, filler)
    return found


def by_models(shots: Sequence[dspy.Example], seed: int, checkpoints: Mapping[str, Path]) -> dict[str, str]:
    """What each model wrote; what two names share is written once."""
    texts = {path: written(shots, seed, infiller(path)) for path in dict.fromkeys(checkpoints.values())}
    return {name: texts[path] for name, path in checkpoints.items()}


def averaged(found: Mapping[str, float]) -> dict[str, float]:
    """With the mean of all orders of shuffled labels in their place."""
    orders = {name for name in found if name.startswith("shuffled#")}
    kept_names = {name: value for name, value in found.items() if name not in orders}
    return {**kept_names, "shuffled": mean(found[name] for name in orders)}


def written(shots: Sequence[dspy.Example], seed: int, filler: Infiller) -> str:
    """The instruction that an infiller wrote."""
    return instructions_of(infill(shots, seed, infiller=filler))["self"]
