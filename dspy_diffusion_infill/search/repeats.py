"""Runs of the same program on the same example: how much of a gain is the task LM's own noise.

Repeats are numbered as further examples: with 5 examples, run 7 is the second run on example 2.
Pure: no dspy, no torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from statistics import fmean, variance

STANDARD_ERRORS = 2.0
"""That a gain must exceed: noise alone gets there about once in forty times."""


def averaged(scores: Mapping[int, float], num_examples: int) -> dict[int, float]:
    """The mean of each example's scores.

    Example:
        >>> averaged({0: 0.0, 1: 1.0, 2: 0.5, 3: 1.0}, 2)
        {0: 0.25, 1: 1.0}
    """
    return {example: fmean(found) for example, found in _by_example(scores, num_examples).items()}


def noise_floor(programs: Iterable[Mapping[int, float]], num_examples: int) -> float:
    """How far the mean scores of two programs may lie apart by the noise of their runs alone.

    Measured on how the scores of one example differ from run to run; where each example was run once, nothing
    is known of it, and the floor is 0.

    Args:
        programs: Scores of each program, by run.
        num_examples: Examples that the runs repeat.

    Example:
        >>> round(noise_floor([{0: 0.0, 1: 1.0, 2: 1.0, 3: 1.0}, {0: 1.0, 1: 1.0, 2: 1.0, 3: 1.0}], 2), 3)
        0.5
    """
    groups = [_by_example(scores, num_examples) for scores in programs]
    return STANDARD_ERRORS * math.sqrt(math.fsum(map(_squared_error, groups)))


def _squared_error(found: Mapping[int, list[float]]) -> float:
    """Of the mean over all examples."""
    repeated = (scores for scores in found.values() if len(scores) > 1)
    return math.fsum(variance(scores) / len(scores) for scores in repeated) / max(1, len(found)) ** 2


def _by_example(scores: Mapping[int, float], num_examples: int) -> dict[int, list[float]]:
    found: dict[int, list[float]] = {}
    for run in sorted(scores):
        found.setdefault(run % num_examples, []).append(scores[run])
    return found
