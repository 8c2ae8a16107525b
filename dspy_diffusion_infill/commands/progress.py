"""A bar of metric calls while a run goes on, and a line for whatever it logs."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from dspy.utils.callback import BaseCallback
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from dspy_diffusion_infill.search.saying import logger as said
from dspy_diffusion_infill.visible import visible


class CountRuns(BaseCallback):
    """Hears of every run of a program, as a DSPy callback, and advances a bar.

    Args:
        kind: Class of the program.
        bar: Has one task.
    """

    def __init__(self, kind: type, bar: Progress) -> None:
        self._kind, self._bar = kind, bar
        self._open = set[str]()

    def on_module_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """Note the start of a run."""
        if type(instance) is self._kind:
            self._open.add(call_id)

    def on_module_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """Count a run that was noted."""
        if call_id in self._open:
            self._open.discard(call_id)
            self._bar.advance(self._bar.task_ids[0])


@contextlib.contextmanager
def shown(console: Console, total: int | None) -> Iterator[Progress]:
    """Show a bar, if this is a terminal, and above it what this package logs.

    Args:
        console: Where.
        total: Metric calls that the run may spend; None if that is not capped.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        _lines_of(logging.getLogger("dspy_diffusion_infill"), console),
        _lines_of(said, console),
        Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar,
    ):
        bar.add_task("metric calls", total=total)
        yield bar


@contextlib.contextmanager
def _lines_of(logger: logging.Logger, console: Console) -> Iterator[None]:
    """Show what one logger says here, and nowhere else."""
    handler, level, propagate = _Lines(console), logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


class _Lines(logging.Handler):
    """Prints through the console of the bar, which would be torn otherwise."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        self._console.print(Text(visible(record.getMessage())))
