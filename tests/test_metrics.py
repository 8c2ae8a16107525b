"""Metrics: every shape that DSPy's optimizers accept, and no failure that passes for a score."""

import functools
import sys

import dspy
import numpy as np
import pytest
from dspy.evaluate import answer_exact_match

from dspy_diffusion_infill.errors import MetricError, SettingsError, Unscored
from dspy_diffusion_infill.search.metrics import Metric, Verdict


class Judge:
    def __call__(self, example, prediction):
        return 0.5


def two(example, prediction):
    return 0.5


def three(example, prediction, trace=None):
    assert trace is None
    return 0.5


def needs_trace(example, prediction, trace):
    assert trace is None
    return 0.5


def five(example, prediction, trace=None, pred_name=None, pred_trace=None):
    return dspy.Prediction(score=0.5, feedback="half")


@pytest.mark.parametrize(
    "function",
    [
        two,
        three,
        needs_trace,
        five,
        Judge(),
        Judge().__call__,
        functools.partial(three, trace=None),
        lambda *a: 0.5,
    ],
)
def test_every_shape_is_called_with_what_it_needs(function):
    assert Metric(function)("e", "p", where="").score == 0.5


def test_a_default_that_is_not_none_is_left_alone():
    example = dspy.Example(answer="a")
    assert Metric(answer_exact_match)(example, dspy.Prediction(answer="a"), where="").score == 1.0


@pytest.mark.parametrize("value", [1, True, 1.0, np.float32(1), np.int64(1), np.bool_(True), np.array(1.0)])
def test_every_kind_of_number_is_a_score(value):
    verdict = Metric(lambda e, p: value)("e", "p", where="")
    assert verdict == Verdict(1.0)
    assert type(verdict.score) is float


def test_feedback_is_kept():
    assert Metric(five)("e", "p", where="") == Verdict(0.5, "half")


@pytest.mark.parametrize(
    "value",
    [
        None,
        float("nan"),
        float("inf"),
        "1",
        {"score": 1},
        (1, "ok"),
        1j,
        np.ones(2),
        dspy.Prediction(score=None),
    ],
)
def test_what_is_no_number_names_the_example(value):
    with pytest.raises(MetricError, match=r"(?s)must return a finite number.*on valset example 3"):
        Metric(lambda e, p: value)("e", "p", where="valset example 3")


def test_a_module_says_by_its_forward_what_it_takes():
    class Judge(dspy.Module):
        def forward(self, example, prediction, trace):
            return 0.5

    assert Metric(Judge())("e", "p", where="") == Verdict(0.5)
    with pytest.raises(SettingsError, match=r"metric must be callable as metric\(example, prediction\)"):
        Metric(dspy.Predict("a -> b"))


def test_a_metric_that_ends_the_process_is_an_error():
    with pytest.raises(MetricError, match="metric raised SystemExit on valset example 3: 0"):
        Metric(lambda e, p: sys.exit(0))("e", "p", where="valset example 3")


def test_a_metric_that_raises_names_the_example_and_keeps_the_cause():
    with pytest.raises(
        MetricError, match="ZeroDivisionError on valset example 3: division by zero"
    ) as caught:
        Metric(lambda e, p: 1 / 0)("e", "p", where="valset example 3")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert caught.value.__notes__ == ["The program had answered 'p'"]


def test_unscored_passes_through():
    def unsure(example, prediction):
        raise Unscored("no verdict")

    with pytest.raises(Unscored, match="no verdict"):
        Metric(unsure)("e", "p", where="")


async def late(example, prediction):
    return 1.0


class LateJudge:
    async def __call__(self, example, prediction):
        return 1.0


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (0.5, "metric must be callable; got 0.5"),
        (late, "plain function; got the coroutine function late"),
        (LateJudge(), "plain function; got the coroutine function"),
        (lambda example: 1.0, r"callable as metric\(example, prediction\)"),
        (lambda e, p, *, scale: 1.0, r"callable as metric\(example, prediction\)"),
    ],
)
def test_what_cannot_be_a_metric_is_refused_at_construction(function, message):
    with pytest.raises(SettingsError, match=message):
        Metric(function)
