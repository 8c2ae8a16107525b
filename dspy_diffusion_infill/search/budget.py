"""What a run may spend, and what it has spent.

Pure: no dspy, no torch.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from dspy_diffusion_infill.checks import check_finite, check_whole
from dspy_diffusion_infill.errors import SettingsError

Preset = Literal["light", "medium", "heavy"]
CALLS_PER_EXAMPLE: dict[str, int] = {"light": 10, "medium": 30, "heavy": 80}
"""Metric calls per validation example that each preset allows."""
CAPS = ("metric_calls", "seconds", "tokens", "usd")
"""What a budget can cap."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The most a run may spend, the base optimizer's share included. At least one cap must be set.

    Example:
        >>> Budget(metric_calls=200, seconds=600).metric_calls
        200
    """

    metric_calls: int | None = None
    """Program runs scored. Never overrun, at any number of threads."""
    seconds: float | None = None
    """Wall-clock time from the start of `compile`; overrun, as the two below, by calls in flight alone."""
    tokens: int | None = None
    """In and out of every LM called in the run, as DSPy reports them; answers from the cache are free."""
    usd: float | None = None
    """US dollars for these tokens, at LiteLLM's list prices; refused where it knows no price."""
    base_share: float = 0.5
    """Share of the caps that the base optimizer may use; above 0, at most 1."""

    def __post_init__(self) -> None:
        if all(getattr(self, cap) is None for cap in CAPS):
            raise SettingsError(f"A budget must set one of {', '.join(CAPS)}; got none. No run is unlimited.")
        if self.metric_calls is not None:
            check_whole({"metric_calls": self.metric_calls})
        caps = {name: cap for name in CAPS if (cap := getattr(self, name)) is not None}
        check_finite({**caps, "base_share": self.base_share})
        if self.metric_calls is not None and self.metric_calls < 1:
            raise SettingsError(f"metric_calls must be at least 1, or None; got {self.metric_calls}.")
        for name in CAPS[1:]:
            if (cap := getattr(self, name)) is not None and not cap > 0:
                raise SettingsError(f"{name} must be above 0, or None; got {cap}.")
        if not 0 < self.base_share <= 1:
            raise SettingsError(f"base_share must be above 0 and at most 1; got {self.base_share}.")

    def describe(self) -> str:
        """The caps in words.

        Example:
            >>> Budget(metric_calls=200, seconds=600).describe()
            '200 metric calls, 600 seconds'
        """
        caps = {name: cap for name in CAPS if (cap := getattr(self, name)) is not None}
        return ", ".join(f"{cap:.12g} {name.replace('_', ' ')}" for name, cap in caps.items())


def check_budget(budget: object) -> None:
    """Refuse what is neither a preset nor a `Budget`."""
    preset = isinstance(budget, str) and budget in CALLS_PER_EXAMPLE
    if not isinstance(budget, Budget) and not preset:
        words = ", ".join(map(repr, CALLS_PER_EXAMPLE))
        raise SettingsError(f"budget must be {words} or a Budget; got {budget!r}.")


def resolve_budget(budget: Preset | Budget, num_examples: int, num_held_out: int = 0) -> Budget:
    """Turn a preset into caps.

    Args:
        budget: A preset, or caps to check.
        num_examples: Validation examples that the search uses; each as often as it is run.
        num_held_out: Those that are kept out of it, and on which start and result are compared.

    Raises:
        SettingsError: If the baseline alone could not be scored.
    """
    if isinstance(budget, str):
        return Budget(metric_calls=CALLS_PER_EXAMPLE[budget] * (num_examples + num_held_out))
    least = num_examples + 2 * num_held_out
    if budget.metric_calls is not None and budget.metric_calls < least:
        twice = f", on {num_held_out} held-out ones twice" if num_held_out else ""
        raise SettingsError(
            f"metric_calls must be at least the number of validation examples, {least}, since the "
            f"baseline is scored on each{twice}; got {budget.metric_calls}."
        )
    return budget


class Meter:
    """Hands out permits for metric calls, keeps the time, and adds up. Safe to share between threads.

    What is granted is spent unless it is returned, so the cap on metric calls holds exactly.

    Args:
        budget: The caps.
        reserved: Metric calls that are not granted until `release`.
        clock: In seconds.

    Example:
        >>> meter = Meter(Budget(metric_calls=3))
        >>> meter.take(2), meter.take(2), meter.spent
        (2, 1, 3)
    """

    def __init__(
        self, budget: Budget, *, reserved: int = 0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.budget = budget
        self._reserved = reserved
        self.spent = 0
        """Metric calls."""
        self.tokens, self.usd = 0, 0.0
        self._clock = clock
        self._start = clock()
        self._lock = threading.Lock()

    @property
    def seconds(self) -> float:
        """Time since the start."""
        return self._clock() - self._start

    @property
    def spent_cap(self) -> str | None:
        """The cap that is reached, in words; None while there is budget left."""
        if self.budget.metric_calls is not None and self.spent >= self.budget.metric_calls - self._reserved:
            return f"metric_calls: {self.budget.metric_calls}"
        return self.reached()

    def reached(self, share: float = 1.0) -> str | None:
        """The cap on seconds, tokens or dollars of which this share is used up, in words."""
        for name in CAPS[1:]:
            cap = getattr(self.budget, name)
            if cap is not None and getattr(self, name) >= share * cap:
                return f"{name}: {cap:.12g}"
        return None

    def pause(self, seconds: float, wait: Callable[[float], object] = time.sleep) -> bool:
        """Wait, but not beyond the cap on seconds; whether a cap is reached then."""
        cap = self.budget.seconds
        wait(seconds if cap is None else max(0.0, min(seconds, cap - self.seconds)))
        return self.reached() is not None

    def add(self, *, tokens: int, usd: float) -> None:
        """Count what an LM call used."""
        with self._lock:
            self.tokens += tokens
            self.usd += usd

    def catch_up(self, *, tokens: int, usd: float) -> None:
        """Count what an earlier process of this run had used by some moment."""
        with self._lock:
            self.tokens, self.usd = max(self.tokens, tokens), max(self.usd, usd)

    def take(self, num_calls: int, *, share: float = 1.0) -> int:
        """Ask for permits; as many as are left are granted.

        Args:
            num_calls: Metric calls wanted.
            share: Of the caps, the part that this caller may use up.
        """
        with self._lock:
            if self.reached(share):
                return 0
            cap = self.budget.metric_calls
            left = num_calls if cap is None else int(share * (cap - self._reserved)) - self.spent
            granted = max(0, min(num_calls, left))
            self.spent += granted
            return granted

    def release(self) -> None:
        """Grant what was reserved, too."""
        with self._lock:
            self._reserved = 0

    def give_back(self, num_calls: int) -> None:
        """Return permits that were not used."""
        with self._lock:
            self.spent -= num_calls
