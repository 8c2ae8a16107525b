"""How much better one program is than another on the same examples, and how sure that is.

Pure: no dspy, no torch.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

Interval = tuple[float, float]
SetScore = Callable[[Sequence[int], Sequence[float]], float]
"""(numbers of examples, a program's score on each) -> the program's score on all of them."""

LEVEL = 0.95
NUM_SAMPLES = 2000
"""Resamples: the ends of an interval then move by about a twentieth of its width from seed to seed."""


@dataclass(frozen=True, slots=True)
class Gain:
    """What one program's score adds to another's."""

    size: float
    interval: Interval
    """Of the size, at 95 %."""
    moved: tuple[tuple[int, float], ...]
    """The examples whose score changed, by number, and by how much."""


def paired_gain(before: Mapping[int, float], after: Mapping[int, float], score: SetScore) -> Gain:
    """Compare two programs, with a bootstrap percentile interval.

    Examples are drawn anew with replacement, each with both its scores. The draws are the same in every call;
    those for which the score of the set is no number are left out. With fewer than ten examples such an
    interval is too narrow.

    Source: B. Efron and R. Tibshirani, An Introduction to the Bootstrap (1993), Ch. 13.

    Args:
        before: One program's scores, by example.
        after: The other's; examples that only one was scored on do not count.
        score: Makes a score of the set from those of its examples.

    Example:
        >>> paired_gain({3: 0.0, 7: 0.5}, {3: 0.5, 7: 1.0}, mean_score)
        Gain(size=0.5, interval=(0.5, 0.5), moved=((3, 0.5), (7, 0.5)))
    """
    shared = [example for example in before if example in after]

    def size(drawn: Sequence[int]) -> float:
        pair = ([scores[example] for example in drawn] for scores in (after, before))
        ours, theirs = (score(drawn, scores) for scores in pair)
        return ours - theirs

    draw = random.Random(0)
    sizes = (size(draw.choices(shared, k=len(shared))) for _ in range(NUM_SAMPLES))
    moved = tuple((n, after[n] - before[n]) for n in sorted(shared) if after[n] != before[n])
    return Gain(size(shared), _middle(sorted(filter(math.isfinite, sizes))), moved)


def mean_score(examples: Sequence[int], scores: Sequence[float]) -> float:
    """The mean of the examples' scores."""
    return fmean(scores)


def _middle(sizes: Sequence[float]) -> Interval:
    if not sizes:
        return -math.inf, math.inf
    tail = round((1 - LEVEL) / 2 * len(sizes))
    return sizes[tail], sizes[-1 - tail]
