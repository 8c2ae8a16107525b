"""What the steps of one run share."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import dspy
from dspy.utils.callback import BaseCallback

from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.prompts.canvas import Infiller
from dspy_diffusion_infill.search.budget import Meter
from dspy_diffusion_infill.search.estimate import Estimate
from dspy_diffusion_infill.search.evaluation import Evaluator
from dspy_diffusion_infill.search.events import Event, Listener, RunFailed, RunStarted
from dspy_diffusion_infill.search.failures import describe
from dspy_diffusion_infill.search.journal import Journal, open_journal
from dspy_diffusion_infill.search.metrics import Metric
from dspy_diffusion_infill.search.saying import logger
from dspy_diffusion_infill.search.selection import Selection
from dspy_diffusion_infill.search.task import Task
from dspy_diffusion_infill.search.usage import (
    COUNTS_USAGE,
    UsageOfCalls,
    check_caps,
    check_repeats,
    lms_of,
    track,
    warn_if_noisy,
)
from dspy_diffusion_infill.traces import ConditionOn

Callback = BaseCallback | Listener
"""DSPy's hear of its events in this run, functions of the run's own (`search.events`)."""


def told_apart(callbacks: Sequence[Callback]) -> tuple[list[BaseCallback], list[Listener]]:
    """DSPy's callbacks, and the functions: DSPy calls by name whatever an optimizer has as `callbacks`.

    Raises:
        SettingsError: If one is neither.
    """
    if not isinstance(callbacks, Sequence):
        raise SettingsError(f"callbacks must be a list; got {callbacks!r}.")
    of_dspy = [callback for callback in callbacks if isinstance(callback, BaseCallback)]
    listeners = [callback for callback in callbacks if not isinstance(callback, BaseCallback)]
    for listener in listeners:
        if not callable(listener):
            raise SettingsError(f"callbacks must be DSPy's, or functions of an event; got {listener!r}.")
    return of_dspy, listeners


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One run: what it works on, what it works with, and what it may spend.

    Raises:
        SettingsError: If a cap could never be reached, or runs would be repeated in vain.
    """

    task: Task
    metric: Metric
    meter: Meter
    selection: Selection
    num_threads: int | None
    """Program runs at a time; None takes DSPy's setting."""
    condition_on: ConditionOn = "examples"
    """What canvases show; traces are kept of every run where they are wanted."""
    journal: Journal | None = None
    listeners: tuple[Listener, ...] = ()

    def __post_init__(self) -> None:
        check_caps(self.meter.budget, lms_of(self.task.student))
        check_repeats(self.selection.repeats, self.task.student)

    def announce(self, base: object, infiller: Infiller, expected: Estimate) -> None:
        """Log what the run may cost, before it costs anything."""
        budget = self.meter.budget
        share = f", at most {budget.base_share:.0%} of it by {type(base).__name__}" if base else ""
        logger.info("This run may spend %s%s.", budget.describe(), share)
        if self.selection.set_metric is not None:
            logger.info("Every candidate is scored on every example, since set_metric needs them all.")
        logger.info("It selects on %d examples, with fillings of %s.", len(self.task.valset), infiller.name)
        logger.info("%s", expected)
        if expected.is_tight:
            logger.warning("The budget may end before the first window is decided, and then finds nothing.")
        warn_if_noisy(self.selection.repeats, self.task.student)

    @contextlib.contextmanager
    def recorded(
        self,
        log_dir: str | os.PathLike[str] | None,
        run: Mapping[str, str],
        callbacks: Sequence[Callback],
        *,
        resume: bool,
    ) -> Iterator[Session]:
        """Count what every LM call uses, tell the callbacks, and keep a journal if there is a folder for it.

        The session that it gives tells the callbacks of a start and a failure by itself.

        Args:
            log_dir: The folder.
            run: The run's fingerprint.
            callbacks: Of this run alone.
            resume: Whether to go on from the journal of an earlier process.

        Raises:
            SettingsError: If another process uses the folder, or it holds another run.
        """
        of_dspy, listeners = told_apart(callbacks)
        if COUNTS_USAGE and dspy.settings.track_usage:
            of_dspy = [*of_dspy, UsageOfCalls()]
        with (
            dspy.context(callbacks=[*dspy.settings.callbacks, *of_dspy], usage_tracker=track(self.meter)),
            open_journal(log_dir, run, resume=resume) as journal,
        ):
            session = replace(self, journal=journal, listeners=tuple(listeners))
            session.tell(session._started())
            try:
                yield session
            except BaseException as error:
                session.tell(RunFailed(metric_calls=self.meter.spent, error=describe(error)))
                raise

    def tell(self, event: Event) -> None:
        """Let every listener know."""
        for listener in self.listeners:
            listener(event)

    def _started(self) -> RunStarted:
        budget, task = self.meter.budget, self.task
        return RunStarted(
            metric_calls=self.meter.spent,
            budget=budget.describe(),
            cap=budget.metric_calls,
            num_examples=len(task.valset),
            num_held_out=len(task.holdout),
        )

    def evaluator(self, program: dspy.Module, examples: Sequence[dspy.Example], role: str) -> Evaluator:
        """What scores a program's candidates on examples; `role` names these in errors."""
        per_example = self.selection.set_metric is None
        return Evaluator(
            program,
            metric=self.metric,
            examples=examples,
            role=role,
            numbers=self.task.numbers(examples, "valset" if role == "holdout" else role),
            meter=self.meter,
            num_threads=self.num_threads or dspy.settings.num_threads,
            max_unscored=1.0 if role == "trainset" else self.selection.max_unscored,
            set_metric=self.selection.set_metric,
            keep_traces=self.condition_on != "examples" and role != "holdout",
            repeats=1 if role == "trainset" else self.selection.repeats,
            max_score=self.selection.max_score if role == "valset" and per_example else math.inf,
            journal=self.journal,
        )
