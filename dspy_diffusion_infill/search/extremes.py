"""The lowest and the highest score seen, and what they say of a metric's scale.

Pure: no dspy, no torch.
"""

from __future__ import annotations

import logging
import math

logger = logging.getLogger(__name__)


class Extremes:
    """The lowest and the highest score that a metric gave.

    Args:
        max_score: The highest that it should give; the first higher one is told.
        floor: A lowest score from the beginning; None if only the metric says what is low.

    Example:
        >>> seen = Extremes(floor=0.0)
        >>> seen.add(4.0)
        >>> seen.lowest, seen.highest
        (0.0, 4.0)
    """

    def __init__(self, max_score: float = math.inf, floor: float | None = None) -> None:
        self._max_score, self._floor = max_score, floor
        self._lowest, self.highest = math.inf, -math.inf

    @property
    def lowest(self) -> float:
        """The lowest score so far, the floor's included; 0 if there is none."""
        lowest = self._lowest if self._floor is None else min(self._lowest, self._floor)
        return lowest if math.isfinite(lowest) else 0.0

    @property
    def are_one(self) -> bool:
        """Whether the metric gave the same score every time."""
        return self._lowest == self.highest

    def add(self, score: float) -> None:
        """Take a score into account."""
        if self.highest <= self._max_score < score:
            logger.warning(
                "max_score must be the highest score that the metric can give; it is %g, and the metric gave "
                "%g. No candidate is dropped early, and no score ends the run. Say Selection(max_score=...).",
                self._max_score, score,
            )  # fmt: skip
        self._lowest, self.highest = min(self._lowest, score), max(self.highest, score)
