"""Run another optimizer first, inside the budget, and keep every score it paid for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import dspy
from dspy.teleprompt import Teleprompter

from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.prompts.candidates import Candidate
from dspy_diffusion_infill.prompts.program import copy_program, with_own_signatures
from dspy_diffusion_infill.search import failures
from dspy_diffusion_infill.search.budget import Meter
from dspy_diffusion_infill.search.counting import METRIC_NAMES, Counter, Stop
from dspy_diffusion_infill.search.harvest import Evaluated, Harvest, rebuilt, snapshot
from dspy_diffusion_infill.search.journal import Journal, is_faithful
from dspy_diffusion_infill.search.metrics import Metric
from dspy_diffusion_infill.search.paid_calls import PaidCalls
from dspy_diffusion_infill.search.quiet import quiet
from dspy_diffusion_infill.search.saying import logger
from dspy_diffusion_infill.search.task import Task

PLACE = ("base",)
"""Of the result in a journal."""


@dataclass(slots=True)
class BaseResult:
    """What the base found."""

    program: dspy.Module
    evaluated: list[Evaluated] = field(default_factory=list)
    stopped: bool = False
    """Whether it was stopped at its share of the budget."""
    interrupted: bool = False
    """Whether the user stopped it."""
    error: str | None = None
    """What it raised, if it failed; `program` is the student then."""

    def hand_over(self, program: dspy.Module, add: Callable[[Candidate, int, float], None]) -> None:
        """Pass on every score of a program that differs from this one in its instructions alone."""
        same = snapshot(program, {})
        for found in self.evaluated:
            if found.in_place and found.is_like(same):
                for example, score in found.scores.items():
                    add(found.instructions, example, score)


def metric_of(base: Teleprompter | None) -> Callable[..., Any] | None:
    """The metric a base optimizer was built with, if any."""
    return next((found for name in METRIC_NAMES if (found := getattr(base, name, None)) is not None), None)


def choose_metric(metric: Callable[..., Any] | None, base: Teleprompter | None) -> Metric:
    """The user's metric, else the base's.

    Raises:
        SettingsError: If there is none, or it is no metric.
    """
    function = metric if metric is not None else metric_of(base)
    if function is None:
        raise SettingsError("A metric must be given to DiffusionInfill or to its base; got none.")
    return Metric(function)


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
    base: Teleprompter | None,
    task: Task,
    *,
    optional: Mapping[str, Any],
    required: Mapping[str, Any],
    meter: Meter,
    journal: Journal | None = None,
) -> BaseResult:
    """Compile a copy of the student with the base, and count its metric calls.

    The base itself is not modified. Its metric is counted; when its share of the budget is used up, or at
    Ctrl-C, it is stopped, and the best program it had evaluated on the whole valset is kept. If it fails, the
    student and the scores paid for are kept. What it prints is dropped; what the metric prints is not.

    Args:
        base: Any optimizer whose `compile` takes a student and a trainset; None leaves the student as it is.
        task: The student, whose LMs are kept; the trainset, for the base; the valset, whose scores are kept.
        optional: Arguments for `compile` that are passed if it takes them and they are not None.
        required: Arguments that the user wants passed.
        meter: Grants permits; the base may use `base_share` of it.
        journal: Gets every metric call, and the result if that can be put in JSON; gives those of an earlier
            process.

    Raises:
        SettingsError: If the base does not take one of the required arguments.
        MetricError: If the metric raised for another reason than an outage, or returned no number.
        Exception: What the base raised, if a service refuses this user.
    """
    student = task.student
    if base is None:
        return BaseResult(copy_program(student))
    if journal is not None and (record := journal.find(PLACE)) is not None:
        return _resumed(record, student, meter)
    harvest = Harvest(task.valset)
    counter = Counter(meter, PaidCalls(journal, meter))
    arguments = _arguments(base, optional, required)
    given = with_own_signatures(copy_program(student))
    given._compiled = False  # several optimizers refuse a program that another one has marked
    found = BaseResult(copy_program(student), harvest.evaluated)
    callbacks = [*dspy.settings.callbacks, harvest, counter]
    with quiet(), dspy.context(callbacks=callbacks):
        try:
            program = counter.counted(base).compile(given, trainset=list(task.trainset), **arguments)
            found.program = _checked(program)
        except (Stop, KeyboardInterrupt) as end:
            found.interrupted, found.program = isinstance(end, KeyboardInterrupt), harvest.best(student)
        except Exception as error:
            if failures.is_refusal(error):
                raise
            found.error = failures.describe(error)
        finally:
            counter.closed = True
    counter.check()
    found.stopped = counter.stopped
    keep_lms(found.program, student)
    _tell(type(base).__name__, found, meter)
    if journal is not None and not found.interrupted:
        _keep(journal, found, student, meter)
    return found


def _checked(program: object) -> dspy.Module:
    """What the base gave back, if that is a program."""
    if not isinstance(program, dspy.Module):
        raise TypeError(f"compile must return a dspy.Module; got {program!r}.")
    return program


def _keep(journal: Journal, found: BaseResult, student: dspy.Module, meter: Meter) -> None:
    """Write down a result that instructions and demos tell whole."""
    program = snapshot(found.program, {})
    whole = type(found.program) is type(student) and snapshot(rebuilt(student, program), {}).is_like(program)
    record = {
        "program": asdict(program),
        "evaluated": [
            asdict(one) | {"scores": list(map(list, one.scores.items()))} for one in found.evaluated
        ],
        "stopped": found.stopped,
        "used": {"metric_calls": meter.spent, "tokens": meter.tokens, "usd": meter.usd},
    }
    if found.error is None and whole and is_faithful(record):
        journal.write(PLACE, record)


def _resumed(record: Mapping[str, Any], student: dspy.Module, meter: Meter) -> BaseResult:
    """The result of an earlier process; what it used counts as spent."""
    used = record["used"]
    meter.take(used["metric_calls"])
    meter.catch_up(tokens=used["tokens"], usd=used["usd"])
    evaluated = [Evaluated(**one | {"scores": dict(one["scores"])}) for one in record["evaluated"]]
    return BaseResult(rebuilt(student, Evaluated(**record["program"])), evaluated, record["stopped"])


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
    optional = {**optional, "eval_kwargs": {"num_threads": optional.get("num_threads")}}
    fitting = {name: value for name, value in optional.items() if name in taken and value is not None}
    return {**fitting, **required}
