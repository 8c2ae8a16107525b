"""A run as it goes, on standard error: a live line in a terminal or a notebook, plain lines elsewhere."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from dspy_diffusion_infill.search.events import (
    EditAccepted,
    Event,
    RunEnded,
    RunFailed,
    RunStarted,
    StartScored,
    WindowFilled,
)


class ShowProgress:
    """A callback of `DiffusionInfill` that shows one run at a time.

    Args:
        console: Where to; None for standard error.

    Example:
        >>> from dspy_diffusion_infill import DiffusionInfill
        >>> exact = lambda example, prediction: example.rating == prediction.rating
        >>> optimizer = DiffusionInfill(exact, callbacks=[ShowProgress()])
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._live: Progress | None = None
        self._task = TaskID(0)
        self._score = "not scored"

    def __call__(self, event: Event) -> None:
        """Show what happened."""
        if isinstance(event, RunStarted) and (self._console.is_terminal or self._console.is_jupyter):
            self._start(event.cap)
        if (line := self._line(event)) is not None:
            # what a model wrote is no markup; and a line of text stays one
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        if self._live is not None:
            what = f"{event.predictor}: {event.before!r}" if isinstance(event, WindowFilled) else None
            self._live.update(self._task, completed=event.metric_calls, score=self._score, description=what)
            if isinstance(event, RunEnded | RunFailed):
                self._live.stop()
                self._live = None

    def _start(self, cap: int | None) -> None:
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
        score = TextColumn("calls, score {task.fields[score]}", markup=False)
        self._live = Progress(*columns, score, TimeElapsedColumn(), console=self._console)
        self._task = self._live.add_task("", total=cap, score=self._score)
        self._live.start()

    def _line(self, event: Event) -> str | None:
        match event:
            case RunStarted():
                held = f", {event.num_held_out} kept out" if event.num_held_out else ""
                return f"Up to {event.budget}, on {event.num_examples} examples{held}."
            case StartScored(score=float(score)):
                self._score = f"{score:.4g}"
                return f"The start scores {self._score} after {event.metric_calls} metric calls."
            case EditAccepted(edit=edit):
                self._score = f"{event.score:.4g}"
                change = f"{edit.predictor}: {edit.before!r} -> {edit.after!r}"
                gain = f"{edit.gain:+.4g}, score {self._score}"
                return f"{change}: {gain} after {event.metric_calls} metric calls."
            case RunEnded():
                return f"Ended after {event.metric_calls} metric calls: {event.stop_reason}; {event.verdict}."
            case RunFailed():
                return f"Failed after {event.metric_calls} metric calls: {event.error}"
            case _:
                return None
