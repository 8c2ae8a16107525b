"""Which examples are hard: those that the programs run so far scored low on.

Pure: no dspy, no torch.
"""

from __future__ import annotations

import math


class Hardness:
    """Mean score of each example, over all candidates.

    Example:
        >>> seen = Hardness()
        >>> for example, score in ((0, 1.0), (1, 0.0), (0, 0.5)):
        ...     seen.add(example, score)
        >>> sorted([2, 0, 1], key=seen.mean)
        [1, 0, 2]
    """

    def __init__(self) -> None:
        self._totals: dict[int, tuple[float, int]] = {}

    def add(self, example: int, score: float) -> None:
        """Take a score into account."""
        total, count = self._totals.get(example, (0.0, 0))
        self._totals[example] = (total + score, count + 1)

    def mean(self, example: int) -> float:
        """The example's mean score; infinite if it has none, so that it comes last."""
        total, count = self._totals.get(example, (math.inf, 1))
        return total / count
