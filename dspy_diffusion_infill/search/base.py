"""Run another optimizer first, inside the budget, and keep every score it paid for."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import dspy
from dspy.teleprompt import Teleprompter

from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.prompts.candidates import Candidate
from dspy_diffusion_infill.prompts.program import copy_program
from dspy_diffusion_infill.search import failures
from dspy_diffusion_infill.search.budget import Meter
from dspy_diffusion_infill.search.harvest import METRIC_NAMES, Counter, Evaluated, Harvest, Stop, snapshot
from dspy_diffusion_infill.search.task import Task

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class BaseResult:
    """What the base found."""

    program: dspy.Module
    evaluated: list[Evaluated] = field(default_factory=list)
    stopped: bool = False
    """Whether it was stopped at its share of the budget."""
    error: str | None = None
    """What it raised, if it failed; `program` is the student then."""

    def hand_over(self, add: Callable[[Candidate, int, float], None]) -> None:
        """Pass on every score of a program that differs from `program` in its instructions alone."""
        same = snapshot(self.program, {})
        for found in self.evaluated:
            if (found.demos, found.models) == (same.demos, same.models):
                for example, score in found.scores.items():
                    add(found.instructions, example, score)


def metric_of(base: Teleprompter | None) -> Callable[..., Any] | None:
    """The metric a base optimizer was built with, if any."""
    return next((found for name in METRIC_NAMES if (found := getattr(base, name, None)) is not None), None)


def check_base_arguments(
    base: object, teacher: dspy.Module | None, base_kwargs: Mapping[str, Any] | None
) -> None:
    """Check that what is only for a base optimizer comes with one.

    Raises:
        SettingsError: If not.
    """
    if base is not None and not isinstance(base, Teleprompter):
        raise SettingsError(f"base must be a DSPy optimizer, or None; got {base!r}.")
    if base_kwargs and base is None:
        raise SettingsError(f"base_kwargs must be left out without a base; got {sorted(base_kwargs)}.")
    if teacher is not None and base is None:
        logger.warning("The teacher has no part in this run: it would be handed to the base.")


def run_base(
    base: Teleprompter,
    task: Task,
    *,
    optional: Mapping[str, Any],
    required: Mapping[str, Any],
    meter: Meter,
) -> BaseResult:
    """Compile a copy of the student with the base, and count its metric calls.

    The base itself is not modified. Its metric is counted; when its share of the budget is used up it is
    stopped, and the best program it had evaluated on the whole valset is kept. If it fails, the student and
    the scores paid for are kept. What it writes to stdout is dropped.

    Args:
        base: Any optimizer whose `compile` takes a student and a trainset.
        task: The student, whose LMs are kept; the trainset, for the base; the valset, whose scores are kept.
        optional: Arguments for `compile` that are passed if it takes them and they are not None.
        required: Arguments that the user wants passed.
        meter: Grants permits; the base may use `base_share` of it.

    Raises:
        SettingsError: If the base does not take one of the required arguments.
        MetricError: If the metric raised for another reason than an outage.
        Exception: What the base raised, if a service refuses this user.
    """
    student = task.student
    harvest = Harvest(task.valset)
    counter = Counter(meter)
    arguments = _arguments(base, optional, required)
    given = copy_program(student)
    given._compiled = False  # several optimizers refuse a program that another one has marked
    found = BaseResult(copy_program(student), harvest.evaluated)
    callbacks = [*dspy.settings.callbacks, harvest]
    with contextlib.redirect_stdout(io.StringIO()), dspy.context(callbacks=callbacks):
        try:
            found.program = counter.counted(base).compile(given, trainset=list(task.trainset), **arguments)
        except Stop:
            found.stopped, found.program = True, harvest.best(student)
        except Exception as error:
            if failures.is_refusal(error):
                raise
            found.error = failures.describe(error)
    counter.check()
    keep_lms(found.program, student)
    _tell(type(base).__name__, found, meter)
    return found


def _tell(name: str, found: BaseResult, meter: Meter) -> None:
    stopped = " and was stopped there" if found.stopped else ""
    logger.info("%s spent %d metric calls%s.", name, meter.spent, stopped)
    if found.error is not None:
        logger.warning("%s failed; the search starts from the student. %s", name, found.error)


def keep_lms(program: dspy.Module, student: dspy.Module) -> None:
    """Give predictors back the LMs they had in the student, where the base dropped or copied them."""
    originals = {name: predictor.lm for name, predictor in student.named_predictors()}
    for name, predictor in program.named_predictors():
        lm = originals.get(name)
        if lm is not None and (predictor.lm is None or predictor.lm.model == lm.model):
            predictor.lm = lm


def _arguments(
    base: Teleprompter, optional: Mapping[str, Any], required: Mapping[str, Any]
) -> dict[str, Any]:
    taken = inspect.signature(base.compile).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values())
    unknown = [] if takes_any else sorted(set(required) - set(taken))
    if unknown:
        raise SettingsError(
            f"base_kwargs must be arguments of {type(base).__name__}.compile, {list(taken)}; got {unknown}."
        )
    fitting = {name: value for name, value in optional.items() if name in taken and value is not None}
    return {**fitting, **required}
