"""Run a program on examples in threads, wait out outages, and never take a failure for a score."""

from __future__ import annotations

import contextvars
import functools
import math
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NoReturn

import dspy

from dspy_diffusion_infill.errors import EvaluationError, MetricError, Unscored
from dspy_diffusion_infill.search import failures
from dspy_diffusion_infill.search.budget import Meter
from dspy_diffusion_infill.search.called import Called, Calls
from dspy_diffusion_infill.search.gate import Gate
from dspy_diffusion_infill.search.metrics import Metric
from dspy_diffusion_infill.search.steps import Step, steps_of
from dspy_diffusion_infill.search.variants import asking_anew, lm_for, without_cache

NO_PREDICTION = "The program returned no prediction."
"""As Refine does when every try failed."""


@dataclass(frozen=True, slots=True)
class Run:
    """One program run on one example. Without a score it failed, or could not be judged."""

    score: float | None = None
    feedback: str | None = None
    failure: str | None = None
    unscored: str | None = None
    trace: tuple[Step, ...] | None = None
    """None if it was not kept."""
    called: Called | None = None
    """The predictors that were called; None if that is not known."""
    crashed: bool = False
    """Whether it failed by an error that may be the program's own."""


Task = tuple[dspy.Module, int, bool]
"""A program, the number of an example, and whether to keep what each predictor was given and gave back."""


class Runner:
    """Runs programs on a set of examples.

    Args:
        metric: Higher is better.
        examples: What to run on. Not modified. With 5 of them, number 7 is another run on number 2.
        names: Of the examples, in errors.
        meter: Granted a permit for each run; those not used are returned to it.
        num_threads: Runs at a time.
    """

    def __init__(
        self,
        metric: Metric,
        examples: Sequence[dspy.Example],
        *,
        names: Sequence[str],
        meter: Meter,
        num_threads: int,
    ) -> None:
        self._metric, self._examples, self._names = metric, examples, names
        self._meter, self._num_threads = meter, num_threads
        self._stop = threading.Event()
        self.max_crashes = math.inf
        """Errors of the program's own after which nothing more is begun."""
        self._crashes: dict[int, EvaluationError] = {}
        self.proof: tuple[dspy.Module, int] | None = None
        """A program and the number of an example on which it ran well."""
        self.outage: str | None = None
        """The error that every try ended in; nothing is run from then on."""

    def run_all(
        self, tasks: Iterable[Task], count: int, keep: Callable[[int, Run], None]
    ) -> list[Run | None]:
        """Run in threads; None for those that a cap or an outage kept from running.

        Args:
            tasks: What to run, in order; each is asked for when its turn comes to be handed out.
            count: How many there are, and permits for them.
            keep: Called with the number of a task and its run, in the task's thread as soon as it is done.

        Raises:
            EvaluationError: If a service refuses the program.
            MetricError: If the metric raised or returned no number.
        """
        if not count:
            return []
        self._crashes.clear()
        gate = Gate()
        try:
            with ThreadPoolExecutor(self._num_threads) as pool:
                return self._collect(pool, tasks, keep, gate)
        finally:
            gate.close()  # Ctrl-C may come at any moment: only now is it certain what was begun
            self._meter.give_back(count - gate.entered)

    def _collect(
        self, pool: Executor, tasks: Iterable[Task], keep: Callable[[int, Run], None], gate: Gate
    ) -> list[Run | None]:
        futures = list[Future[Run | None]]()
        try:
            for n, task in enumerate(tasks):
                # in a copy of this context: dspy.context(...) of the caller reaches the threads
                run = contextvars.copy_context().run
                futures.append(pool.submit(run, self._run, n, task, keep, gate))
            return [future.result() for future in futures]
        except BaseException:
            self._stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise

    def _run(self, number: int, task: Task, keep: Callable[[int, Run], None], gate: Gate) -> Run | None:
        if not gate.enter():
            return None
        try:
            return self._begun(number, task, keep)
        finally:
            gate.leave()

    def _begun(self, number: int, task: Task, keep: Callable[[int, Run], None]) -> Run | None:
        try:
            run = failures.retry(lambda: self._try(*task), failures.PAUSES, self._wait)
        except BaseException as error:
            if not failures.is_outage(error):
                self._stop.set()  # the other threads begin nothing more
                raise
            run = self._blamed(task, error)
        if run is None:
            self._meter.give_back(1)
        elif not run.crashed:
            keep(number, run)
        return run

    def _blamed(self, task: Task, error: BaseException) -> Run | None:
        """What to make of a run that every try ended in an outage; None if a service is down.

        A tool that never answers what one candidate asks of it is the candidate's fault: what ran well before
        still does, just before and just after another try that fails again.
        """
        judged = isinstance(error, MetricError)
        if self.goes_well(judged=judged):
            try:
                return self._try(*task)
            except Exception as again:
                if not failures.is_outage(again):
                    raise
                if self.goes_well(judged=judged):
                    return Run(failure=failures.describe(again.__cause__ or again))
        self._stop.set()
        self.outage = str(error)
        return None

    @property
    def is_broken(self) -> bool:
        """Whether programs raised on too many of the last runs' examples."""
        return len(self._crashes) > self.max_crashes

    def raise_crash(self) -> NoReturn:
        """Raise what a program raised, on the first example of the last runs on which it did."""
        raise self._crashes[min(self._crashes)]

    def goes_well(self, *, judged: bool = False) -> bool:
        """Whether a run that went well does so again; False if there was none.

        Its LMs are asked, not their caches, which answer though a service is down.

        Args:
            judged: Whether the metric must do its part too. That is no metric call of the budget's, as the
                tries of one call are not.
        """
        if self.proof is None:
            return False
        program, example = self.proof
        repeat, number = divmod(example, len(self._examples))
        try:
            with _apart(repeat, Calls()), dspy.context(lm=without_cache(dspy.settings.lm)):
                prediction = asking_anew(program)(**self._examples[number].inputs())
                if judged:
                    self._metric(self._examples[number], prediction, where=self._names[number])
        except Exception:  # noqa: BLE001  (whatever it is, it is not the candidates' fault)
            return False
        return True

    def _wait(self, pause: float) -> bool:
        """Wait before another try; whether there is to be none."""
        return self._meter.pause(pause, self._stop.wait) or self._stop.is_set()

    def _try(self, program: dspy.Module, example: int, keep_trace: bool) -> Run | None:
        if self._meter.reached() or self._stop.is_set():
            return None
        repeat, number = divmod(example, len(self._examples))
        where = self._names[number]
        with _apart(repeat, calls := Calls()):
            try:
                prediction = program(**self._examples[number].inputs())
            except Exception as error:  # noqa: BLE001  (programs are the user's)
                return self._failed(error, number, where)
            if prediction is None:
                return Run(failure=NO_PREDICTION)
            called = calls.names  # before the metric, whose LM calls are its own
            trace = steps_of(program, calls) if keep_trace else None
            try:
                verdict = self._metric(self._examples[number], prediction, where=where)
            except Unscored as reason:
                return Run(unscored=str(reason) or "no reason given")
        if verdict.feedback is None and trace is None:
            return _scored(verdict.score, called)
        return Run(verdict.score, verdict.feedback, trace=trace, called=called)

    def _failed(self, error: Exception, number: int, where: str) -> Run:
        """A run that raised; what says nothing about any prompt is raised at once."""
        failure = failures.describe(error)
        if failures.is_prompts_fault(error):
            return Run(failure=failure)
        raised = EvaluationError(f"The program failed on {where}: {failure}")
        raised.__cause__ = error
        if failures.is_outage(error) or failures.is_refusal(error):
            raise raised
        self._crashes[number] = raised
        if self.is_broken:
            self._stop.set()
        return Run(failure=failure, crashed=True)


def _apart(repeat: int, *heard_by: Calls) -> AbstractContextManager[None]:
    """A trace of its own (Refine and BestOfN need one), and no growth of the global trace and history."""
    callbacks = [*dspy.settings.callbacks, *heard_by]
    lm = lm_for(dspy.settings.lm, repeat)
    return dspy.context(trace=[], disable_history=True, lm=lm, callbacks=callbacks)


@functools.lru_cache(maxsize=1024)
def _scored(score: float, called: Called | None) -> Run:
    """The same object for equal scores: a long search keeps very many."""
    return Run(score, called=called)
