"""What happens in a run, told as it happens.

A callback of `DiffusionInfill` that is a plain function hears these, one after the other, in the thread of
`compile`:

    def hear(event):
        if isinstance(event, EditAccepted):
            mlflow.log_metric("score", event.score, step=event.metric_calls)

    DiffusionInfill(metric, callbacks=[hear])

What it raises stops the run. Pure: no dspy, no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dspy_diffusion_infill.search.edits import Edit


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened."""

    metric_calls: int
    """Of the whole run, up to now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted(Event):
    """Before the base runs, and before anything is spent."""

    budget: str
    """The caps in words."""
    cap: int | None
    """On metric calls; None if only other things are capped."""
    num_examples: int
    """Validation examples that the search uses."""
    num_held_out: int
    """Those that are kept out of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartScored(Event):
    """The base is done, and what the search starts from is scored."""

    score: float | None
    """None if the budget did not last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowFilled(Event):
    """The infiller has filled a window; what it wrote is about to compete."""

    pass_number: int
    predictor: str
    start: int
    """First character of the window."""
    before: str
    """Text of the window."""
    num_candidates: int
    num_rejected: int
    """Fillings that are never scored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateScored(Event):
    """A filling has competed."""

    predictor: str
    text: str
    """What stands in the window's place."""
    score: float | None
    """Mean over the examples it was scored on; None if on none."""
    num_scored: int
    """Examples it was scored on, until it won, lost, or could no longer win."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EditAccepted(Event):
    """A window was rewritten for good."""

    edit: Edit
    score: float
    """Of the instructions with it, and with what was accepted together with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnded(Event):
    """The program is about to be returned."""

    stop_reason: str
    score: float | None
    """Of the program that is returned, on the validation examples."""
    verdict: str
    """`confirmed`, `unconfirmed` or `refuted`, as in `Confirmation`."""

    def __str__(self) -> str:
        score = "unknown" if self.score is None else f"{self.score:.4g}"
        return f"Score {score} after {self.metric_calls} metric calls; the end: {self.stop_reason}."


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFailed(Event):
    """The run is about to raise, or was interrupted before there was anything to return."""

    error: str


Listener = Callable[[Event], object]
"""What hears of a run."""
