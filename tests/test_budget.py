"""The budget: never unlimited, never overrun."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.search.budget import Budget, Meter, check_budget, resolve_budget


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.mark.parametrize(("preset", "calls"), [("light", 160), ("medium", 480), ("heavy", 1280)])
def test_a_preset_allows_calls_per_validation_example(preset, calls):
    assert resolve_budget(preset, 16) == Budget(metric_calls=calls)


@pytest.mark.parametrize("word", ["lite", "", None, 100, ["light"], {}])
def test_an_unknown_preset_is_refused(word):
    with pytest.raises(SettingsError, match=r"budget must be 'light', 'medium', 'heavy' or a Budget; got"):
        check_budget(word)


@pytest.mark.parametrize(
    ("caps", "message"),
    [
        ({}, "must set one of metric_calls, seconds, tokens, usd; got none"),
        ({"metric_calls": 0}, "metric_calls must be at least 1, or None; got 0"),
        ({"seconds": 0}, "seconds must be above 0, or None; got 0"),
        ({"tokens": 0}, "tokens must be above 0, or None; got 0"),
        ({"usd": -0.5}, "usd must be above 0, or None; got -0.5"),
        ({"seconds": float("nan")}, "seconds must be a finite number; got nan"),
        ({"seconds": float("inf")}, "seconds must be a finite number; got inf"),
        ({"tokens": "20"}, "tokens must be a finite number; got '20'"),
        ({"metric_calls": "20"}, "metric_calls must be a whole number; got '20'"),
        ({"metric_calls": 20.5}, r"metric_calls must be a whole number; got 20\.5"),
        ({"metric_calls": float("inf")}, "metric_calls must be a whole number; got inf"),
        ({"metric_calls": float("nan")}, "metric_calls must be a whole number; got nan"),
        ({"metric_calls": True}, "metric_calls must be a whole number; got True"),
        ({"metric_calls": 9, "base_share": None}, "base_share must be a finite number; got None"),
        ({"metric_calls": 9, "base_share": 0}, "base_share must be above 0 and at most 1; got 0"),
    ],
)
def test_a_cap_out_of_range_is_refused(caps, message):
    with pytest.raises(SettingsError, match=message):
        Budget(**caps)


def test_a_budget_that_cannot_score_the_baseline_is_refused():
    with pytest.raises(SettingsError, match=r"validation examples, 16, .*got 15"):
        resolve_budget(Budget(metric_calls=15), 16)
    assert resolve_budget(Budget(metric_calls=16), 16).metric_calls == 16


def test_permits_are_exact_under_threads():
    meter = Meter(Budget(metric_calls=1000))
    with ThreadPoolExecutor(16) as pool:
        granted = sum(pool.map(lambda _: meter.take(3), range(500)))
    assert granted == meter.spent == 1000
    assert meter.spent_cap == "metric_calls: 1000"


def test_a_share_is_a_cap_of_its_own():
    meter = Meter(Budget(metric_calls=10))
    assert meter.take(8, share=0.5) == 5
    assert meter.take(8, share=0.5) == 0
    assert meter.take(8) == 5


def test_what_is_given_back_can_be_taken_again():
    meter = Meter(Budget(metric_calls=2))
    meter.take(2)
    meter.give_back(1)
    assert meter.take(2) == 1


def test_time_runs_out():
    clock = Clock()
    meter = Meter(Budget(seconds=10), clock=clock)
    clock.now += 5
    assert (meter.take(1), meter.take(1, share=0.5), meter.spent_cap) == (1, 0, None)
    clock.now += 5
    assert (meter.take(1), meter.reached(), meter.spent_cap, meter.seconds) == (
        0,
        "seconds: 10",
        "seconds: 10",
        10,
    )


def test_tokens_and_dollars_run_out():
    meter = Meter(Budget(tokens=1_000_000, usd=0.5))
    meter.add(tokens=600_000, usd=0.2)
    assert (meter.take(1), meter.take(1, share=0.5), meter.reached()) == (1, 0, None)
    meter.add(tokens=400_000, usd=0.2)
    assert (meter.take(1), meter.spent_cap) == (0, "tokens: 1000000")
    dear = Meter(Budget(usd=0.5))
    dear.add(tokens=1, usd=0.5)
    assert dear.spent_cap == "usd: 0.5"


def test_the_caps_are_told_in_words():
    budget = Budget(metric_calls=1_234_567, seconds=9.5, tokens=10, usd=0.25)
    assert budget.describe() == "1234567 metric calls, 9.5 seconds, 10 tokens, 0.25 usd"
