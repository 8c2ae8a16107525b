"""How sure a gain is.

Pure: no dspy, no torch.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from statistics import fmean

Interval = tuple[float, float]

LEVEL = 0.95
NUM_SAMPLES = 2000
"""Resamples: the ends of an interval then move by about a twentieth of its width from seed to seed."""


def paired_interval(differences: Sequence[float]) -> Interval:
    """A bootstrap percentile interval, at 95 %, of the mean of paired differences.

    Examples are drawn anew with replacement, each with its difference. The draws are the same in every call.
    With fewer than ten examples such an interval is too narrow.

    Source: B. Efron and R. Tibshirani, An Introduction to the Bootstrap (1993), Ch. 13.

    Args:
        differences: One for each example: its score under one program minus that under the other.

    Example:
        >>> paired_interval([0.5, 0.5, 0.5])
        (0.5, 0.5)
    """
    draw = random.Random(0)
    means = sorted(fmean(draw.choices(differences, k=len(differences))) for _ in range(NUM_SAMPLES))
    tail = round((1 - LEVEL) / 2 * NUM_SAMPLES)
    return means[tail], means[-1 - tail]
