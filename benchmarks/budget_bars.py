"""The runs of the budget benchmark, and the numbers that are compared with bounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

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


def bars(rows: Sequence[Row]) -> dict[str, float]:
    """The numbers that are compared with bounds, as far as there are rows for them."""
    found: dict[str, float] = {}
    for start, suffix in (("vague", ""), ("good", "_good")):
        full, race, screen = (rows_of(rows, start, rule) for rule in RULES)
        if full:
            found[f"race_call_share{suffix}"] = share(race, full, "calls")
            same = [ours.instructions == theirs.instructions for ours, theirs in zip(race, full, strict=True)]
            found[f"race_same_winner{suffix}"] = fmean(same)
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


def share(ours: Sequence[Row], theirs: Sequence[Row], name: str) -> float:
    """Ratio of sums; not a number where theirs is 0."""
    total = sum(getattr(row, name) for row in theirs)
    return sum(getattr(row, name) for row in ours) / total if total else float("nan")
