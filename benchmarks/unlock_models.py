"""The models of `benchmarks.unlock`: one start, and what each variant makes of it. All work is kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

from dspy_diffusion_infill.engine.vocabulary import Vocabulary
from dspy_diffusion_infill.prompts.canvas import Message
from dspy_diffusion_infill.training.data import Example, collate, encode
from dspy_diffusion_infill.training.embedded import build
from dspy_diffusion_infill.training.grammar import Reviews
from dspy_diffusion_infill.training.masking import Objective
from dspy_diffusion_infill.training.monitor import HeldOut
from dspy_diffusion_infill.training.recipe import READING, Recipe
from dspy_diffusion_infill.training.saving import save
from dspy_diffusion_infill.training.schemes import (
    ORACLE,
    Instruction,
    held_out_schemes,
    training_instructions,
)
from dspy_diffusion_infill.training.start import read_start, read_weights
from dspy_diffusion_infill.training.train import Batches, train
from dspy_diffusion_infill.training.world import PARTS, RealReviews, Stage, World

VARIANTS = ("public", "ro", "fs", "fsro")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Sizes and lengths; the defaults are those of the bars."""

    recipe: Recipe = Recipe()  # noqa: RUF009  (frozen)
    start_updates: int = 300
    public: tuple[Stage, ...] = (
        Stage(name="one", num_updates=250, num_schemes=1, num_wordings=1, **READING),
        Stage(name="forty", num_updates=500, num_schemes=40, num_wordings=1, **READING),
        Stage(name="all", num_updates=1200, **READING),
        Stage(name="sft", num_updates=300, learning_rate=1.2e-3, objectives=("ro",)),
    )
    """Response-only SFT: whole answers masked first, on ever more schemes, or reading never starts."""
    refinement: int = 800
    """Updates of each variant, from `public`."""
    num_schemes: int = 5
    held_out: int = 64
    """Conversations that losses are measured on."""

    def stages(self, variant: str) -> tuple[Stage, ...]:
        """What a variant adds to `public`."""
        fs = Stage(name="fs", num_updates=self.refinement, learning_rate=1.2e-3, objectives=("fs",))
        half = self.refinement // 2
        ro = replace(fs, name="ro", objectives=("ro",))
        both = (replace(fs, num_updates=half), replace(ro, num_updates=self.refinement - half))
        return {"public": (), "ro": (ro,), "fs": (fs,), "fsro": both}[variant]


class Models:
    """Trains each variant once, and keeps it in its folder."""

    def __init__(self, data: Path, work: Path, plan: Plan) -> None:
        self.plan = plan
        self.work = work
        work.mkdir(parents=True, exist_ok=True)
        self.start = work / "start"
        if not self.start.is_dir():
            self._make_start(data)
        self.vocabulary = read_start(str(self.start)).vocabulary
        self.world = World(RealReviews(data), self.vocabulary)

    def variant(self, name: str, seed: int) -> Path:
        """The checkpoint of a variant."""
        if name == "public":
            return self._grow(f"public-{seed}", self.start, self.plan.public, seed)
        return self._grow(f"{name}-{seed}", self.variant("public", seed), self.plan.stages(name), seed)

    def _make_start(self, data: Path) -> None:
        first = Stage(name="first", num_updates=1, learning_rate=1e-6)
        empty = self.work / "empty"
        if not empty.is_dir():
            build(data, empty, replace(self.plan.recipe, stages=(first,)), use_cpu=True)
        vocabulary = read_start(str(empty)).vocabulary
        tokens, seed = self.plan.recipe.batch_tokens, self.plan.recipe.seed

        def make(number: int) -> dict[str, Tensor]:
            return unpaired(vocabulary, tokens // PARTS, f"{seed}:{number}")

        stage = replace(first, name="unpaired", num_updates=self.plan.start_updates, learning_rate=1.5e-3)
        self._train("start", empty, [(stage, make)])

    def _grow(self, name: str, parent: Path, stages: Sequence[Stage], seed: int) -> Path:
        tokens = self.plan.recipe.batch_tokens

        def batch_of(stage: Stage) -> Callable[[int], dict[str, Tensor]]:
            return lambda number: self.world.batch(stage, tokens, seed, number)

        if (self.work / name).is_dir():
            return self.work / name
        return self._train(name, parent, [(stage, batch_of(stage)) for stage in stages])

    def _train(
        self, name: str, parent: Path, stages: Sequence[tuple[Stage, Callable[[int], dict[str, Tensor]]]]
    ) -> Path:
        start = read_start(str(parent))
        model = read_weights(start)
        model.set_attn_implementation("eager")  # quicker backwards on a CPU (docs/log.md)
        curve: list[dict[str, Any]] = []
        examples = conversations(start.vocabulary, self.plan.held_out)
        monitor = HeldOut(examples, start.vocabulary, shift=0, seed=0, num_samples=1)
        for stage, make in stages:
            trainer = train(
                model,
                Batches(make, stage.num_updates * PARTS),
                self.work / f"{name}-work" / stage.name,
                learning_rate=stage.learning_rate,
                warmup_updates=min(100, stage.num_updates // 4),
                decay=stage.decay,
                use_cpu=True,
                accumulation=PARTS,
                monitor=monitor,
                monitor_updates=max(1, stage.num_updates // 8),
            )
            log = (entry for entry in trainer.state.log_history if "eval_prompt_loss" in entry)
            curve += [{"stage": stage.name, **entry} for entry in log]
        (self.work / f"{name}-curve.json").write_text(json.dumps(curve), encoding="utf-8")
        save(model, start, self.work / name, torch.float32, f"{name} of benchmarks.unlock\n")
        return self.work / name


def unpaired(vocabulary: Vocabulary, batch_tokens: int, seed: str) -> dict[str, Tensor]:
    """Sentences and instructions, none beside another, masked anywhere."""
    random = Random(f"unpaired:{seed}")
    instructions = training_instructions()
    rows: list[Example] = []
    while sum(len(row.ids) for row in rows) < batch_tokens:
        if random.random() < 0.5:
            turn = Message.text("system", random.choice(instructions).text)
        else:
            turn = Message.text("user", Reviews(random).draw(random.randrange(5))[0])
        rows.append(encode([turn], vocabulary))
    objectives: list[Objective] = ["fs" for _ in rows]
    return collate(rows, objectives, random.getrandbits(62), vocabulary)


def conversations(vocabulary: Vocabulary, count: int) -> list[Example]:
    """Held-out schemes stated and used, one review each."""
    random = Random("unlock: held out")
    schemes = held_out_schemes()
    rows = []
    for number in range(count):
        scheme = schemes[number % len(schemes)]
        grade = random.choice(scheme.grades)
        turns = [
            Message.text("system", Instruction(ORACLE, scheme).text),
            Message.text("user", Reviews(random).draw(grade)[0]),
            Message.text("assistant", Instruction(ORACLE, scheme).reply(grade)),
        ]
        rows.append(encode(turns, vocabulary))
    return rows


def stop_share(model: nn.Module, examples: Sequence[Example], vocabulary: Vocabulary) -> float:
    """Share of stop tokens among the likeliest ones where a whole instruction is masked."""
    stops = wanted = 0
    for example in examples:
        first = example.maskable.index(True)
        window = range(first, example.maskable.index(False, first))
        ids = torch.tensor([example.ids])
        ids[0, window.start : window.stop] = vocabulary.mask_token_id
        with torch.no_grad():
            guesses = model(input_ids=ids, use_cache=False).logits[0, window.start : window.stop].argmax(-1)
        stops += sum(guess in vocabulary.stop_ids for guess in guesses.tolist())
        wanted += len(window)
    return stops / wanted
