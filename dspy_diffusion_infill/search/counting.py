"""Count the metric calls of another optimizer, and stop it at its share of the budget."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping
from typing import Any

from dspy.teleprompt import Teleprompter
from dspy.utils.callback import BaseCallback

from dspy_diffusion_infill.errors import MetricError, Unscored
from dspy_diffusion_infill.search import failures
from dspy_diffusion_infill.search.budget import Meter
from dspy_diffusion_infill.search.metrics import number_of
from dspy_diffusion_infill.search.paid_calls import PaidCalls
from dspy_diffusion_infill.search.quiet import aloud

METRIC_NAMES = ("metric", "metric_fn")


class Stop(BaseException):
    """Raised through the base: optimizers swallow or rename ordinary exceptions from a metric."""


def uses_only(optimizer: Teleprompter | None, metric: Callable[..., Any]) -> bool:
    """Whether an optimizer, and those inside it, have no other metric than this."""
    if optimizer is None:
        return True
    found = [getattr(optimizer, name, None) for name in METRIC_NAMES]
    same = all(one is None or one == metric for one in found)
    return same and all(uses_only(inner, metric) for inner in _inside(optimizer))


def _inside(optimizer: Teleprompter) -> list[Teleprompter]:
    """Its base, as this package's optimizer has one, and BetterTogether's parts."""
    parts = getattr(optimizer, "optimizers", None)
    inner = [getattr(optimizer, "base", None), *(parts.values() if isinstance(parts, Mapping) else ())]
    return [one for one in inner if isinstance(one, Teleprompter)]


class Counter(BaseCallback):
    """Wraps the metrics of an optimizer, and of the optimizers inside it; as a callback, it hears LM calls.

    Args:
        meter: Grants a permit for each call.
        paid: Calls of an earlier process, which need none.
    """

    def __init__(self, meter: Meter, paid: PaidCalls) -> None:
        self.error: MetricError | None = None
        self.stopped = False
        """Whether a permit was refused."""
        self.closed = False
        """Whether no call is answered any more: threads of the optimizer may outlive it."""
        self.interrupted = False
        """Whether Ctrl-C came in a metric: other threads may be about to begin a call."""
        self._meter, self._paid = meter, paid

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """Stop at a cap on seconds, tokens or dollars: proposals of prompts call no metric."""
        if self.closed or self._meter.reached(self._meter.budget.base_share):
            self.stopped = True
            raise Stop

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
            if self.error is not None or self.closed:
                raise Stop
            if self.interrupted:
                raise KeyboardInterrupt
            question = self._paid.question(metric, args, kwargs)
            answer = self._paid.again(question)
            return self._ask(metric, question, args, kwargs) if answer is None else answer

        return counted

    def _ask(
        self, metric: Callable[..., Any], question: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Call a metric for a permit, and keep its answer."""
        if not self._meter.take(1, share=self._meter.budget.base_share):
            self.stopped = True
            raise Stop
        try:
            with aloud():
                value = metric(*args, **kwargs)
            score = number_of(value, repr(args[0] if args else kwargs))
        except Unscored:
            self._paid.keep(question, None, None)
            raise
        except KeyboardInterrupt:
            self.interrupted = True
            raise
        except Exception as error:
            if failures.is_outage(error):
                self._meter.give_back(1)
                raise
            self.error = _as_metric_error(error, args[0] if args else kwargs)
            raise Stop from error
        self._paid.keep(question, value, score)
        return value


def _as_metric_error(error: Exception, example: object) -> MetricError:
    if isinstance(error, MetricError):
        return error
    found = MetricError(f"metric raised {type(error).__name__} on {example!r}: {error}")
    found.__cause__ = error
    return found
