"""The embedded task, tuned in sight of labels or of traces: what the benchmarks of traces and steps share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

import dspy

from benchmarks.clusters import interval
from benchmarks.tasks import Domain, real_reviews
from dspy_diffusion_infill.demo import NUM_SHOTS, exact, vague_program, written_reviews
from dspy_diffusion_infill.optimizer import DiffusionInfill
from dspy_diffusion_infill.prompts.canvas import Denoising, Infiller
from dspy_diffusion_infill.prompts.windows import SlidingWindow
from dspy_diffusion_infill.search.budget import CALLS_PER_EXAMPLE, Budget
from dspy_diffusion_infill.traces import ConditionOn

CALLS = CALLS_PER_EXAMPLE["medium"] * NUM_SHOTS
"""Metric calls that one compile may spend."""


class Graded:
    """Whether the rating is the label; and, if there is something to say, that.

    Args:
        said: Label by review, named as the right one in the feedback; None for no feedback.
    """

    def __init__(self, said: Mapping[str, str] | None) -> None:
        self.said = said

    def __call__(
        self, example: dspy.Example, prediction: dspy.Prediction, trace: object = None
    ) -> bool | dspy.Prediction:
        """Score one rating."""
        right = exact(example, prediction)
        if self.said is None:
            return right
        return dspy.Prediction(score=float(right), feedback=f"It should be {self.said[example.review]}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What one run of the task is conditioned on, and which windows are filled."""

    condition_on: ConditionOn
    said: Mapping[str, str] | None = None
    """As for `Graded`."""
    masking: SlidingWindow = SlidingWindow()  # noqa: RUF009  (frozen)


def tuned(
    shots: Sequence[dspy.Example], seed: int, infiller: Infiller, setting: Setting, calls: int
) -> dspy.Module:
    """Compile the vague program on a few labelled reviews, within a number of metric calls."""
    optimizer = DiffusionInfill(
        Graded(setting.said),
        infiller=infiller,
        masking=setting.masking,
        denoising=Denoising(num_candidates=16),
        budget=Budget(metric_calls=calls),
        condition_on=setting.condition_on,
        num_threads=16,
        seed=seed,
    )
    return optimizer.compile(vague_program(), trainset=list(shots))


def labels(shots: Sequence[dspy.Example], *, shuffled: bool, seed: int) -> dict[str, str]:
    """The label of each review, or another review's."""
    told = [example.rating for example in shots]
    if shuffled:
        Random(f"{seed}/feedback").shuffle(told)
    return {example.review: label for example, label in zip(shots, told, strict=True)}


def domains(data: Path | None, split: str) -> list[Domain]:
    """The sentences that ship, and real ones if there is a folder with them."""
    written = Domain("written", written_reviews("test"))
    return [written, Domain("sst", real_reviews(data, split))] if data else [written]


def gain_row(
    name: str, domain: str, schemes: Sequence[str], before: Sequence[float], after: Sequence[float]
) -> dict[str, Any]:
    """Mean gain over cells, with a 95 % bootstrap interval over their schemes; none for a single one."""
    gains = [one - other for one, other in zip(after, before, strict=True)]
    low, high = interval(zip(schemes, gains, strict=True), fmean) or (None, None)
    return {
        "method": name,
        "domain": domain,
        "cells": len(before),
        "score": fmean(after),
        "gain": fmean(gains),
        "low": low,
        "high": high,
    }


def gain_line(row: Mapping[str, Any]) -> str:
    """One line of a table."""
    name = f"{row['domain']} {row['method']}"
    within = "" if row["low"] is None else f"  [{row['low']:+.3f}, {row['high']:+.3f}]"
    return f"{name:<28}{row['score']:>8.3f}{row['gain']:>+9.3f}{within}"
