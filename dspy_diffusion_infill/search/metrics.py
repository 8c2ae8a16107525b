"""Any DSPy metric, as one call that gives a number or says why not.

Pure: no dspy, no torch.
"""

from __future__ import annotations

import inspect
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from textwrap import shorten
from typing import Any

from dspy_diffusion_infill.errors import MetricError, SettingsError, Unscored

MAX_SHOWN = 300
"""Characters of a prediction in a note."""

MetricFunction = Callable[..., Any]
"""`(example, prediction)`, with `trace` or GEPA's five arguments as far as it takes them."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a metric said about one prediction."""

    score: float
    feedback: str | None = None


class Metric:
    """Call a metric of any shape that DSPy's optimizers accept.

    It may take two, three or five arguments, be a function, a partial, or an object with `__call__`, and
    return a number, a bool, or a `Prediction(score=..., feedback=...)`. It is always called without a trace,
    since many metrics turn strict when they get one. Arguments beyond the first two are passed (as None) only
    where they have no default.

    Args:
        function: The metric; higher is better.

    Raises:
        SettingsError: If it cannot be called with an example and a prediction, or is a coroutine function.

    Example:
        >>> exact = Metric(lambda example, prediction, trace=None: example == prediction)
        >>> exact("a", "a", where="example 0")
        Verdict(score=1.0, feedback=None)
    """

    def __init__(self, function: MetricFunction) -> None:
        if not callable(function):
            raise SettingsError(f"metric must be callable; got {function!r}.")
        if any(map(inspect.iscoroutinefunction, (function, type(function).__call__))):
            raise SettingsError(
                f"metric must be a plain function; got the coroutine function {name_of(function)}."
            )
        self.function = function
        self._padding = (None,) * (_num_required(function) - 2)

    def __call__(self, example: Any, prediction: Any, *, where: str) -> Verdict:
        """Score one prediction.

        Args:
            example: Passed on as it is.
            prediction: Passed on as it is.
            where: Names the example in an error, e.g. `valset example 3`.

        Raises:
            MetricError: If the metric raised, or returned what is not a finite number.
            Unscored: If the metric raised it.
        """
        try:
            value = self.function(example, prediction, *self._padding)
        except Unscored:
            raise
        except (Exception, SystemExit) as error:
            raised = MetricError(f"metric raised {type(error).__name__} on {where}: {error}")
            raised.add_note(f"The program had answered {shorten(repr(prediction), MAX_SHOWN)}")
            raise raised from error
        feedback = _field(value, "feedback")
        return Verdict(number_of(value, where), None if feedback is None else str(feedback))


def score_set(function: Callable[..., Any] | None, examples: Sequence[Any], scores: Sequence[float]) -> float:
    """Make one score of those of all examples: their mean, or what a function makes of them.

    Raises:
        MetricError: If the function raised, or returned what is not a finite number.

    Example:
        >>> score_set(lambda examples, scores: max(scores), ["a", "b"], [0.5, 1])
        1.0
    """
    if function is None:
        return fmean(scores)
    try:
        value = function(list(examples), list(scores))
    except Exception as error:
        raise MetricError(f"set_metric raised {type(error).__name__}: {error}") from error
    return number_of(value, f"{len(scores)} examples; it may say 0 where it has no answer", name="set_metric")


def name_of(function: object) -> str:
    """A short name for a function, a partial, or an object."""
    return getattr(function, "__qualname__", None) or type(function).__qualname__


def _num_required(function: MetricFunction) -> int:
    """How many leading positional arguments must be passed: at least 2."""
    try:
        # a dspy.Module passes on whatever it is called with; its own method says what it takes. Asked of its
        # class: DSPy takes a look at the object's for a call, and warns
        forward = getattr(type(function), "forward", None)
        called = forward.__get__(function) if forward else function
        parameters = list(inspect.signature(called).parameters.values())
    except ValueError:  # a builtin without a signature
        return 2
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    takes_any = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    needs_keyword = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    if needs_keyword or (len(positional) < 2 and not takes_any):
        raise SettingsError(
            f"metric must be callable as metric(example, prediction); got {name_of(function)}"
            f"({', '.join(map(str, parameters))})."
        )
    return max(2, sum(p.default is p.empty for p in positional))


def number_of(value: Any, where: str, *, name: str = "metric") -> float:
    """The score in what a metric returned.

    Raises:
        MetricError: If it is no finite number.
    """
    score: Any = value if _field(value, "score") is None else value.score
    number = score.item() if getattr(score, "ndim", None) == 0 else score  # numpy's and torch's scalars
    if not isinstance(number, numbers.Real) or not math.isfinite(number):
        raise MetricError(
            f"{name} must return a finite number, a bool, or a Prediction with a score; "
            f"got {value!r} on {where}."
        )
    return float(number)


def _field(value: Any, name: str) -> Any:
    """Read a field of a Prediction-like object; a plain mapping or tuple is no such object."""
    return None if isinstance(value, Mapping | tuple | str) else getattr(value, name, None)
