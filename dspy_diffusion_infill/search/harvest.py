"""Count the metric calls of another optimizer, and keep the scores it pays for."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import dspy
from dspy.teleprompt import Teleprompter
from dspy.utils.callback import BaseCallback

from dspy_diffusion_infill.errors import MetricError, Unscored
from dspy_diffusion_infill.prompts.candidates import Candidate
from dspy_diffusion_infill.prompts.program import instructions_of, with_instructions
from dspy_diffusion_infill.search import failures
from dspy_diffusion_infill.search.budget import Meter

METRIC_NAMES = ("metric", "metric_fn")


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A program as the base evaluated it, and its scores by validation example."""

    instructions: Candidate
    demos: dict[str, list[Any]]
    models: dict[str, str | None]
    """Name of the LM set on each predictor."""
    scores: Mapping[int, float]


class Stop(BaseException):
    """Raised through the base: optimizers swallow or rename ordinary exceptions from a metric."""


def snapshot(program: dspy.Module, scores: Mapping[int, float]) -> Evaluated:
    """What tells a program from others of its type."""
    predictors = dict(program.named_predictors())
    demos = {name: [dict(demo) for demo in predictor.demos] for name, predictor in predictors.items()}
    models = {name: predictor.lm and predictor.lm.model for name, predictor in predictors.items()}
    return Evaluated(instructions_of(program), demos, models, scores)


def rebuilt(student: dspy.Module, found: Evaluated) -> dspy.Module:
    """The student with the instructions and demos of an evaluated program."""
    program = with_instructions(student, found.instructions)
    for name, predictor in program.named_predictors():
        predictor.demos = [dspy.Example(demo) for demo in found.demos[name]]
    return program


class Counter:
    """Wraps the metrics of an optimizer, and of the optimizers inside it."""

    def __init__(self, meter: Meter) -> None:
        self.error: MetricError | None = None
        self._meter = meter

    def check(self) -> None:
        """Raise what the metric raised, whatever the optimizer made of it."""
        if self.error is not None:
            raise self.error

    def counted(self, optimizer: Teleprompter) -> Teleprompter:
        """A copy of the optimizer whose metric calls are counted."""
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
                raise Stop
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
                raise Stop from error

        return counted


class Harvest(BaseCallback):
    """Listens to the evaluations of the base."""

    def __init__(self, valset: Sequence[dspy.Example]) -> None:
        self.evaluated: list[Evaluated] = []
        self._valset = {id(example): n for n, example in enumerate(valset)}
        self._running: dict[str, Evaluated] = {}

    def on_evaluate_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """Remember the program as it is now; optimizers go on to change it."""
        self._running[call_id] = snapshot(inputs["program"], {})

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
        best = max(complete, key=lambda found: sum(found.scores.values()), default=snapshot(student, {}))
        return rebuilt(student, best)


def _succeeded(prediction: Any) -> bool:
    """Whether a prediction is the program's own: DSPy puts an empty one in place of a failure."""
    if isinstance(prediction, tuple):  # with its trace, as GEPA wants it
        prediction = prediction[0]
    return isinstance(prediction, dspy.Prediction) and bool(prediction.keys())
