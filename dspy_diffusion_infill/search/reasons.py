"""Why runs failed, and how often.

Pure: no dspy, no torch.
"""

from __future__ import annotations

from collections import Counter

NUM_KEPT = 20
"""Reasons that are told apart: a long search must not keep every text that a model wrote."""
MAX_CHARS = 200
"""Of a reason's first line."""
OTHERS = "other reasons"


class Reasons:
    """Counts of reasons, the first ones by their first line.

    Example:
        >>> reasons = Reasons()
        >>> for text in ("ParseError: no field", "ParseError: no field", "TooLong: 9000 tokens"):
        ...     reasons.add(text)
        >>> reasons.counts
        {'ParseError: no field': 2, 'TooLong: 9000 tokens': 1}
    """

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    @property
    def counts(self) -> dict[str, int]:
        """How often each was given."""
        return dict(self._counts)

    @property
    def total(self) -> int:
        """How often any was given."""
        return self._counts.total()

    def add(self, reason: str) -> None:
        """Take one more into account."""
        line = reason.strip().partition("\n")[0][:MAX_CHARS]
        known = line in self._counts or len(self._counts) < NUM_KEPT
        self._counts[line if known else OTHERS] += 1
