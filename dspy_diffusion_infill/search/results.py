"""What a run leaves behind, as plain data.

Pure: no dspy, no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dspy_diffusion_infill.prompts.candidates import Candidate, Rejected, changed_span

MAX_CHARS = 500
"""Of a text that did not get in; longer ones are cut in the logs."""


@dataclass(frozen=True, slots=True)
class Tried:
    """One filling that competed."""

    text: str
    """At most `MAX_CHARS` characters of it."""
    score: float | None
    """Mean over the examples it was scored on; None if on none."""
    num_scored: int
    """Examples it was scored on, until it won, lost, or could no longer win."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One window, infilled and decided."""

    pass_number: int
    predictor: str
    start: int
    """First character of the window."""
    before: str
    """Text of the window."""
    after: str | None
    """Text that took its place; None if nothing was better."""
    num_candidates: int
    candidates: tuple[Tried, ...]
    """The fillings that competed, the likeliest first."""
    rejected: tuple[Rejected, ...]
    """Those that were never scored, and why."""
    refused: bool
    """Whether the best filling won and did not pass review."""
    score: float
    """Mean score of the incumbent after the decision."""
    gain: float
    """What the accepted text added to the mean score; 0 if none was accepted."""
    metric_calls: int
    """Spent on this window."""
    spent: int
    """Metric calls of the whole run up to the decision."""

    @property
    def accepted(self) -> bool:
        """Whether the window was rewritten."""
        return self.after is not None


def trial_logs(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """Every trial, in order."""
    return [{**asdict(trial), "accepted": trial.accepted} for trial in trials]


def candidate_programs(scores: Sequence[tuple[Candidate, float]]) -> list[dict[str, Any]]:
    """Every candidate scored in full, the best first; of equals, the earlier one first."""
    ranked = sorted(scores, key=lambda found: -found[1])
    return [{"score": score, "instructions": dict(candidate)} for candidate, score in ranked]


def changes(before: Candidate, after: Candidate) -> dict[str, dict[str, Any]]:
    """What changed, by predictor; predictors that kept their instructions are left out.

    Example:
        >>> changes({"self": "Rate it."}, {"self": "Rate it well."})
        {'self': {'start': 7, 'before': '', 'after': ' well'}}
    """
    spans: Mapping[str, tuple[int, str, str]] = {
        name: changed_span(before[name], after[name]) for name in after
    }
    return {
        name: {"start": start, "before": old, "after": new}
        for name, (start, old, new) in spans.items()
        if old != new
    }
