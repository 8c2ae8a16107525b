"""Tokens and dollars that language models cost, as DSPy reports them."""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Any

import dspy
from dspy.utils.callback import BaseCallback
from dspy.utils.usage_tracker import UsageTracker

from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.search.budget import Budget, Meter

logger = logging.getLogger(__name__)

COUNTS_USAGE = tuple(map(int, re.findall(r"\d+", dspy.__version__)[:3])) >= (3, 1, 3)
"""Whether DSPy's threads survive a usage tracker; before 3.1.3 every one of them fails."""

Price = tuple[float, float]
"""US dollars for a token in, and for a token out."""

_call: ContextVar[tuple[str, UsageTracker] | None] = ContextVar("_call", default=None)
"""The outermost module that is being called, by the id of the call, and what its LM calls used."""


class Usage(UsageTracker):
    """Hands what each LM call used to a meter, from every thread. Answers from the cache use nothing.

    DSPy gives each of its threads a copy of the tracker; this one's copy is itself.

    Args:
        meter: Adds up.
        outer: The tracker in force until now; it hears of every call too.
    """

    def __init__(self, meter: Meter, outer: UsageTracker | None) -> None:
        super().__init__()
        self._meter, self._outer = meter, outer
        self._prices: dict[str, Price | None] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Usage:
        return self

    def add_usage(self, lm: str, usage_entry: dict[str, Any]) -> None:
        """Count one call."""
        call = _call.get()
        for tracker in (self._outer, call[1] if call else None):
            if tracker is not None:
                tracker.add_usage(lm, usage_entry)
        tokens_in, tokens_out = (usage_entry.get(f"{kind}_tokens") or 0 for kind in ("prompt", "completion"))
        usd = 0.0
        if self._meter.budget.usd is not None and (price := self._price(lm)) is not None:
            usd = tokens_in * price[0] + tokens_out * price[1]
        self._meter.add(tokens=tokens_in + tokens_out, usd=usd)

    def _price(self, lm: str) -> Price | None:
        if lm not in self._prices:
            self._prices[lm] = price_of(lm)
            if self._prices[lm] is None:
                logger.warning("No price is known for %r: its calls do not count towards usd.", lm)
        return self._prices[lm]


class UsageOfCalls(BaseCallback):
    """Lets `get_lm_usage()` of a prediction say what DSPy tells there where no tracker is in force."""

    def on_module_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """Begin to count, if no module around this one has."""
        if _call.get() is None:
            _call.set((call_id, UsageTracker()))

    def on_module_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """Tell what was counted."""
        call = _call.get()
        if call is None or call[0] != call_id:
            return
        _call.set(None)
        prediction = outputs[0] if isinstance(outputs, tuple) and outputs else outputs
        if isinstance(prediction, dspy.Prediction):  # GEPA has a trace beside it
            prediction.set_lm_usage(call[1].get_total_tokens())


def track(meter: Meter) -> UsageTracker | None:
    """The usage tracker of a run; the one in force where this DSPy's threads do not survive one."""
    outer = dspy.settings.usage_tracker
    return Usage(meter, outer=outer) if COUNTS_USAGE else outer


def price_of(lm: str) -> Price | None:
    """What LiteLLM's table says a model's tokens cost, without any discount; None if it does not know it."""
    # slow to import, and only needed for a cap in dollars
    known = importlib.import_module("litellm").model_cost
    for name in (lm, lm.partition("/")[2]):
        if (entry := known.get(name)) is not None and "input_cost_per_token" in entry:
            return float(entry["input_cost_per_token"]), float(entry.get("output_cost_per_token") or 0)
    return None


def check_caps(budget: Budget, lms: Iterable[dspy.BaseLM]) -> None:
    """Refuse a cap on tokens or dollars that could never be reached.

    Raises:
        SettingsError: If this DSPy cannot count usage, or no price is known for one of the LMs.
    """
    if not COUNTS_USAGE and (budget.tokens is not None or budget.usd is not None):
        raise SettingsError(
            f"tokens and usd must be left out before DSPy 3.1.3, which cannot count them; got DSPy "
            f"{dspy.__version__}. Set metric_calls or seconds."
        )
    if budget.usd is None:
        return
    unknown = sorted({lm.model for lm in lms if price_of(lm.model) is None})
    if unknown:
        raise SettingsError(
            f"usd must be left out where no price is known, since it would cap nothing; got LMs {unknown}. "
            "Set tokens, metric_calls or seconds."
        )


def check_repeats(repeats: int, program: dspy.Module) -> None:
    """Refuse to run every example several times where all runs would be the same.

    Raises:
        SettingsError: If every LM answers at temperature 0.
    """
    temperatures = [temperature for _, temperature in _temperatures(program)]
    if repeats > 1 and temperatures and not any(each is None or each > 0 for each in temperatures):
        raise SettingsError(
            f"repeats must be 1 where every LM answers at temperature 0, since all runs are the same; got "
            f"{repeats}."
        )


def warn_if_noisy(repeats: int, program: dspy.Module) -> None:
    """Warn where an LM is known to answer by chance, and is asked once alone."""
    warm = sorted({lm.model for lm, temperature in _temperatures(program) if (temperature or 0) > 0})
    if repeats == 1 and warm:
        logger.warning(
            "%s answers by chance (temperature above 0) and is asked once an example, so that an edit may "
            "win by luck. Selection(repeats=4) measures that, for four times as many metric calls.",
            ", ".join(warm),
        )


def warn_if_uncounted(meter: Meter) -> None:
    """Warn, once the start is scored, of a cap on tokens or dollars that may never be reached."""
    capped = meter.budget.tokens is not None or meter.budget.usd is not None
    if capped and meter.tokens == 0:
        logger.warning(
            "No tokens were counted while the start was scored: its answers came from the cache, or the LM "
            "reports no usage. In that case the caps on tokens and usd hold nothing back."
        )


def _temperatures(program: dspy.Module) -> list[tuple[dspy.BaseLM, float | None]]:
    """Of each predictor its LM, and how it is asked: the predictor's setting comes before the LM's."""
    found = [(each, each.lm or dspy.settings.lm) for _, each in program.named_predictors()]
    return [
        (lm, each.config.get("temperature", lm.kwargs.get("temperature")))
        for each, lm in found
        if lm is not None
    ]


def lms_of(program: dspy.Module) -> list[dspy.BaseLM]:
    """The LM of each predictor: its own, else DSPy's setting."""
    lms = [predictor.lm or dspy.settings.lm for _, predictor in program.named_predictors()]
    return [lm for lm in lms if lm is not None]
