"""The models of `benchmarks.unlock`: one start, and what each variant makes of it. All work is kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model
from torch import Tensor

from benchmarks.unlock_data import conversations, unpaired
from dspy_diffusion_infill.training.embedded import build
from dspy_diffusion_infill.training.masking import Objective
from dspy_diffusion_infill.training.monitor import HeldOut
from dspy_diffusion_infill.training.recipe import STAGES, Recipe
from dspy_diffusion_infill.training.saving import save
from dspy_diffusion_infill.training.start import read_start, read_weights
from dspy_diffusion_infill.training.train import Batches, train
from dspy_diffusion_infill.training.world import PARTS, RealReviews, Stage, World

VARIANTS: dict[str, tuple[str, ...]] = {
    "public": ("public",),
    "ro": ("public", "ro", "ro"),
    "fs": ("public", "fs", "fs"),
    "fs_first": ("public", "fs"),
    "fsro": ("public", "fs", "ro"),
    "eq2": ("public", "eq2", "eq2"),
    "mix": ("public", "mix", "mix"),
}
"""What each variant learned, in order; what two have in common is learned once. `fs_first` is `fsro` before
its response-only part; `mix` masks each row by one objective or the other. `eq2` masks any token, as the
paper's Eq. 2; the full sequences of the others mostly keep the reviews, and often the answers, in sight."""
OBJECTIVES: dict[str, tuple[Objective, ...]] = {
    "fs": ("fs",),
    "eq2": ("fs",),
    "ro": ("ro",),
    "mix": ("fs", "ro"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Sizes and lengths; the defaults are those of the bars."""

    recipe: Recipe = Recipe()  # noqa: RUF009  (frozen)
    start_updates: int = 300
    public: tuple[Stage, ...] = tuple(stage for stage in STAGES if "fs" not in stage.objectives)
    """Response-only SFT: the embedded model's own stages before its first full-sequence one."""
    refinement: int = 1200
    """Updates of each variant, from `public`: two thirds, then one, as the paper's 8 and 4 epochs."""
    learning_rates: tuple[float, float] = (8e-4, 2e-4)
    """Of the two thirds, and of the last, whatever it teaches. That of the last was chosen on held-out
    schemes that are not reported: at four times it, response-only updates erase what full sequences taught.
    """
    variants: tuple[str, ...] = ("public", "ro", "fs", "fs_first", "fsro", "eq2")
    num_schemes: int = 5
    held_out: int = 64
    """Conversations that losses are measured on."""

    def stages(self, path: Sequence[str]) -> tuple[Stage, ...]:
        """What the last part of a path teaches."""
        if len(path) == 1:
            return self.public
        first = self.refinement * 2 // 3
        last = len(path) == 3
        any_token = path[-1] == "eq2"
        stage = Stage(
            name="-".join(path),
            num_updates=self.refinement - first if last else first,
            learning_rate=self.learning_rates[last],
            decay=last,
            shots=(1, 2, 4, 8),
            objectives=OBJECTIVES[path[-1]],
            given_share=0.0 if any_token else 0.95,
            answers_given=0.0 if any_token else 0.6,
            real_share=0.05,
        )
        return (stage,)


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
        return self._grow(VARIANTS[name], seed)

    def checkpoints(self, seed: int) -> dict[str, Path]:
        """Of every variant; and along the refinements, by variant and updates until there, as `fs@400`."""
        found = {name: self.variant(name, seed) for name in self.plan.variants}
        for name in (name for name in self.plan.variants if len(VARIANTS[name]) == 3):
            first, last = VARIANTS[name][:2], VARIANTS[name]
            (begun,), (gentle,) = self.plan.stages(first), self.plan.stages(last)
            found[f"{name}@0"] = found["public"]
            found[f"{name}@{_half(begun)}"] = _halfway(self._folder(first, seed))
            found[f"{name}@{begun.num_updates}"] = self._folder(first, seed)
            found[f"{name}@{begun.num_updates + _half(gentle)}"] = _halfway(self._folder(last, seed))
            found[f"{name}@{begun.num_updates + gentle.num_updates}"] = found[name]
        return found

    def curve(self, name: str, seed: int) -> list[dict[str, Any]]:
        """What was measured along a variant's refinement, after how many of its updates, from `public` on."""
        path = VARIANTS[name]
        parts = [path[:length] for length in range(1, len(path) + 1)]
        curves = [json.loads(_beside(self._folder(part, seed)).read_text(encoding="utf-8")) for part in parts]
        found = {0: curves[0][-1]}
        for curve in curves[1:]:
            before = max(found)
            found = {before + entry["step"]: entry for entry in curve} | found
        return [{"updates": updates, **found[updates]} for updates in sorted(found)]

    def _folder(self, path: Sequence[str], seed: int) -> Path:
        """Of a checkpoint."""
        return self.work / "-".join((*path, str(seed)))

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
        self._train(self.start, empty, [(stage, make)])

    def _grow(self, path: tuple[str, ...], seed: int) -> Path:
        folder, stages = self._folder(path, seed), self.plan.stages(path)

        def batch_of(stage: Stage) -> Callable[[int], dict[str, Tensor]]:
            return lambda number: self.world.batch(stage, self.plan.recipe.batch_tokens, seed, number)

        if not folder.is_dir():
            parent = self._grow(path[:-1], seed) if path[:-1] else self.start
            self._train(folder, parent, [(one, batch_of(one)) for one in stages])
        if len(path) > 1 and not _halfway(folder).is_dir():
            _keep_half(folder, stages[0])
        return folder

    def _train(
        self, folder: Path, parent: Path, stages: Sequence[tuple[Stage, Callable[[int], dict[str, Tensor]]]]
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
                folder.with_name(f"{folder.name}-work") / stage.name,
                learning_rate=stage.learning_rate,
                warmup_updates=min(100, stage.num_updates // 4),
                decay=stage.decay,
                use_cpu=True,
                accumulation=PARTS,
                monitor=monitor,
                monitor_updates=max(1, stage.num_updates // 8),
                save_updates=_half(stage),  # the two that are kept, then: half of it, and all
            )
            log = (entry for entry in trainer.state.log_history if "eval_prompt_loss" in entry)
            curve += [{"stage": stage.name, **entry} for entry in log]
        _beside(folder).write_text(json.dumps(curve), encoding="utf-8")
        save(model, start, folder, torch.float32, _card(folder))
        return folder


def _half(stage: Stage) -> int:
    """Updates until half of a stage is learned."""
    return -(-stage.num_updates // 2)


def _halfway(folder: Path) -> Path:
    """What a model was when half of its last part was learned."""
    return folder.with_name(f"{folder.name}-halfway")


def _keep_half(folder: Path, stage: Stage) -> None:
    """Make a checkpoint of what training itself kept of the half."""
    start = read_start(str(folder))
    kept = folder.with_name(f"{folder.name}-work") / stage.name / f"checkpoint-{_half(stage)}"
    model, half = read_weights(start), _halfway(folder)
    load_model(model, kept / "model.safetensors")
    save(model, start, half, torch.float32, _card(half))


def _card(folder: Path) -> str:
    return f"{folder.name} of benchmarks.unlock\n"


def _beside(folder: Path) -> Path:
    """The file of what was measured while a model was made."""
    return folder.with_name(f"{folder.name}-curve.json")
