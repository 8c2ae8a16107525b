"""Run another optimizer first, inside the budget, and keep every score it paid for."""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import dspy
from dspy.teleprompt import Teleprompter
from dspy.utils.callback import BaseCallback

from dspy_diffusion_infill.errors import MetricError, SettingsError, Unscored
from dspy_diffusion_infill.prompts.candidates import Candidate
from dspy_diffusion_infill.prompts.program import copy_program, instructions_of, with_instructions
from dspy_diffusion_infill.search import failures
from dspy_diffusion_infill.search.budget import Meter
from dspy_diffusion_infill.search.task import Task

METRIC_NAMES = ("metric", "metric_fn")


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A program as the base evaluated it, and its scores by validation example."""

    instructions: Candidate
    demos: dict[str, list[Any]]
    models: dict[str, str | None]
    """Name of the LM set on each predictor."""
    scores: Mapping[int, float]


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
        same = _snapshot(self.program, {})
        for found in self.evaluated:
            if (found.demos, found.models) == (same.demos, same.models):
                for example, score in found.scores.items():
                    add(found.instructions, example, score)


class _Stop(BaseException):
    """Raised through the base: optimizers swallow or rename ordinary exceptions from a metric."""


def metric_of(base: Teleprompter | None) -> Callable[..., Any] | None:
    """The metric a base optimizer was built with, if any."""
    return next((found for name in METRIC_NAMES if (found := getattr(base, name, None)) is not None), None)


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
    harvest = _Harvest(task.valset)
    counter = _Counter(meter)
    arguments = _arguments(base, optional, required)
    given = copy_program(student)
    given._compiled = False  # several optimizers refuse a program that another one has marked
    found = BaseResult(copy_program(student), harvest.evaluated)
    callbacks = [*dspy.settings.callbacks, harvest]
    with contextlib.redirect_stdout(io.StringIO()), dspy.context(callbacks=callbacks):
        try:
            found.program = counter.counted(base).compile(given, trainset=list(task.trainset), **arguments)
        except _Stop:
            found.stopped, found.program = True, harvest.best(student)
        except Exception as error:
            if failures.is_refusal(error):
                raise
            found.error = failures.describe(error)
    counter.check()
    keep_lms(found.program, student)
    return found


def keep_lms(program: dspy.Module, student: dspy.Module) -> None:
    """Give predictors back the LMs they had in the student, where the base dropped or copied them."""
    originals = {name: predictor.lm for name, predictor in student.named_predictors()}
    for name, predictor in program.named_predictors():
        lm = originals.get(name)
        if lm is not None and (predictor.lm is None or predictor.lm.model == lm.model):
            predictor.lm = lm


def _snapshot(program: dspy.Module, scores: Mapping[int, float]) -> Evaluated:
    predictors = dict(program.named_predictors())
    demos = {name: [dict(demo) for demo in predictor.demos] for name, predictor in predictors.items()}
    models = {name: predictor.lm and predictor.lm.model for name, predictor in predictors.items()}
    return Evaluated(instructions_of(program), demos, models, scores)


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


class _Counter:
    """Wraps the metrics of an optimizer, and of the optimizers inside it."""

    def __init__(self, meter: Meter) -> None:
        self.error: MetricError | None = None
        self._meter = meter

    def check(self) -> None:
        """Raise what the metric raised, whatever the optimizer made of it."""
        if self.error is not None:
            raise self.error

    def counted(self, optimizer: Teleprompter) -> Teleprompter:
        counted = copy.copy(optimizer)
        for name in METRIC_NAMES:
            if (metric := getattr(counted, name, None)) is not None:
                setattr(counted, name, self._wrap(metric))
        if isinstance(inner := getattr(counted, "base", None), Teleprompter):
            vars(counted)["base"] = self.counted(inner)
        if isinstance(many := getattr(counted, "optimizers", None), Mapping):  # BetterTogether
            vars(counted)["optimizers"] = {name: self.counted(inner) for name, inner in many.items()}
        return counted

    def _wrap(self, metric: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(metric, updated=())
        def counted(*args: Any, **kwargs: Any) -> Any:
            if self.error is not None or not self._meter.take(1, share=self._meter.budget.base_share):
                raise _Stop
            try:
                return metric(*args, **kwargs)
            except Unscored:
                raise
            except Exception as error:
                if failures.is_outage(error):
                    raise
                example = args[0] if args else kwargs
                self.error = MetricError(f"metric raised {type(error).__name__} on {example!r}: {error}")
                self.error.__cause__ = error
                raise _Stop from error

        return counted


class _Harvest(BaseCallback):
    """Listens to the evaluations of the base."""

    def __init__(self, valset: Sequence[dspy.Example]) -> None:
        self.evaluated: list[Evaluated] = []
        self._valset = {id(example): n for n, example in enumerate(valset)}
        self._running: dict[str, Evaluated] = {}

    def on_evaluate_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """Remember the program as it is now; optimizers go on to change it."""
        self._running[call_id] = _snapshot(inputs["program"], {})

    def on_evaluate_end(
        self, call_id: str, outputs: Any | None, exception: BaseException | None = None
    ) -> None:
        """Keep the scores of validation examples."""
        scores = {
            self._valset[id(example)]: float(score)
            for example, prediction, score in (outputs.results if outputs is not None else ())
            if id(example) in self._valset and _succeeded(prediction)
        }
        self.evaluated.append(replace(self._running.pop(call_id), scores=scores))

    def best(self, student: dspy.Module) -> dspy.Module:
        """The best program evaluated on the whole valset, the earliest of several; else the student."""
        complete = [found for found in self.evaluated if len(found.scores) == len(self._valset)]
        best = max(complete, key=lambda found: sum(found.scores.values()), default=_snapshot(student, {}))
        program = with_instructions(student, best.instructions)
        for name, predictor in program.named_predictors():
            predictor.demos = [dspy.Example(demo) for demo in best.demos[name]]
        return program


def _succeeded(prediction: Any) -> bool:
    """Whether a prediction is the program's own: DSPy puts an empty one in place of a failure."""
    if isinstance(prediction, tuple):  # with its trace, as GEPA wants it
        prediction = prediction[0]
    return isinstance(prediction, dspy.Prediction) and bool(prediction.keys())
