"""Examples that the metric could not judge: they count for no candidate. Pure: no dspy, no torch."""

from __future__ import annotations

from collections.abc import Sequence

from dspy_diffusion_infill.errors import TooManyUnscoredError


class LeftOut:
    """Examples without a score, by their number among all runs.

    Args:
        numbers: Of the examples, as the user knows them.
        num_runs: Of a candidate on all of them.
        most: Largest share of the runs that may go without.
        role: Names the examples.
    """

    def __init__(self, numbers: Sequence[int], *, num_runs: int, most: float, role: str) -> None:
        self._numbers, self._num_runs, self._most, self._role = numbers, num_runs, most, role
        self._reasons: dict[int, str] = {}

    def __contains__(self, example: int) -> bool:
        return example in self._reasons

    def add(self, example: int, reason: str) -> None:
        """One more, with the metric's reason."""
        self._reasons[example] = reason

    @property
    def reasons(self) -> dict[int, str]:
        """By the number that the user knows."""
        count = len(self._numbers)
        return {self._numbers[example % count]: reason for example, reason in self._reasons.items()}

    def check(self) -> None:
        """Refuse to go on with too few.

        Raises:
            TooManyUnscoredError: If there are more than may be.
        """
        cap = self._most * self._num_runs
        if len(self._reasons) > cap:
            number, reason = next(iter(self.reasons.items()))
            count, role = len(self._reasons), self._role
            raise TooManyUnscoredError(
                f"The metric must leave at most {cap:g} of {self._num_runs} {role} examples unscored "
                f"(max_unscored); got {count}, the first at {role} example {number}: {reason}"
            )
