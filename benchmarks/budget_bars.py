"""The runs of the budget benchmark, and the numbers that are compared with bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

RULES = ("full", "race", "screen")
OTHERS = ("random", "unigram", "copro", "gepa", "mipro")
"""Proposers that infilling is compared with."""


@dataclass(frozen=True, slots=True)
class Row:
    """One run."""

    scheme: str
    seed: int
    start: str
    """`vague` or `good`."""
    method: str
    cap: int | None
    calls: int
    """That the metric counted itself."""
    gain: float
    """On the examples compiled on."""
    held_out: float
    instructions: str
    fewest: int | None = None
    """Of a rule that scores all in full: the calls that any rule needs to be sure of the same winners."""


def bars(rows: Sequence[Row]) -> dict[str, float]:
    """The numbers that are compared with bounds, as far as there are rows for them."""
    found: dict[str, float] = {}
    for start, suffix in (("vague", ""), ("good", "_good")):
        full, race, screen = (rows_of(rows, start, rule) for rule in RULES)
        if full:
            found[f"race_call_share{suffix}"] = share(race, full, "calls")
            same = [ours.instructions == theirs.instructions for ours, theirs in zip(race, full, strict=True)]
            found[f"race_same_winner{suffix}"] = fmean(same)
            found[f"fewest_call_share{suffix}"] = share(full, full, "fewest", "calls")
            if not suffix:
                found["screen_call_share"] = share(screen, full, "calls")
                found["screen_gain_share"] = share(screen, full, "gain")
    last = max((row.cap for row in rows if row.cap is not None), default=None)
    held_out = {
        method: fmean(row.held_out for row in rows if (row.method, row.cap) == (method, last))
        for method in dict.fromkeys(row.method for row in rows if row.cap is not None)
    }
    for other in OTHERS:
        if other in held_out:
            found[f"gain_vs_{other}"] = held_out["infill"] - held_out[other]
    capped = [row.calls - row.cap for row in rows if row.cap is not None]
    return found | ({"cap_overrun_calls": max(0, *capped)} if capped else {})


def rows_of(rows: Sequence[Row], start: str, method: str) -> list[Row]:
    """Uncapped runs, in the order of the cells."""
    return [row for row in rows if (row.start, row.method, row.cap) == (start, method, None)]


def share(ours: Sequence[Row], theirs: Sequence[Row], name: str, other: str | None = None) -> float:
    """Ratio of sums, of another number of theirs if it is named; not a number where theirs is 0."""
    total = sum(getattr(row, other or name) for row in theirs)
    return sum(getattr(row, name) for row in ours) / total if total else float("nan")


def fewest_calls(trials: Sequence[Mapping[str, Any]], calls: int, num_examples: int) -> int:
    """The calls without which the winners of a run's windows are not certain, where scores are 0 or 1.

    A winner must be scored in full, and any other candidate fail as often as the winner did; at best its
    failures come first.

    Args:
        trials: Every window of a run that scored all candidates in full.
        calls: Of the run.
        num_examples: On which each was scored.
    """
    saved = 0
    for trial in trials:
        failures = num_examples - round(num_examples * trial["score"])
        losers = sum(tried["text"] != trial["after"] for tried in trial["candidates"])
        needed = num_examples * (len(trial["candidates"]) - losers) + failures * losers
        saved += max(0, trial["metric_calls"] - needed)
    return calls - saved
