"""Noise: a task LM that answers by chance is asked several times; a gain must exceed what chance gives."""

import math
import random
import threading
from collections import Counter

import dspy
import pytest

from dspy_diffusion_infill import Budget, CompactAdapter, Denoising, DiffusionInfill, Selection
from dspy_diffusion_infill.errors import MetricError, SettingsError, Unscored
from dspy_diffusion_infill.prompts.program import instructions_of
from dspy_diffusion_infill.search.repeats import averaged, noise_floor
from tests.doubles import HAS_ENGINES, ScriptedInfiller, exact, obey, reviews, rule_lm


def compile_with(lm, *script, repeats=4, count=8, program=None, metric=exact, temperature=1.0, **settings):
    lm.kwargs["temperature"] = temperature  # 0 unless told otherwise, in an early DSPy
    optimizer = DiffusionInfill(
        metric,
        infiller=ScriptedInfiller(*script),
        denoising=Denoising(num_candidates=len(script)),
        selection=Selection(repeats=repeats, rule="full", **settings.pop("selection", {})),
        budget=settings.pop("budget", Budget(metric_calls=500)),
        **settings,
    )
    program = program or dspy.Predict(dspy.Signature("review -> rating", "Rate the text."))
    with dspy.context(lm=lm, adapter=CompactAdapter(), num_threads=2):
        return optimizer.compile(program, trainset=reviews(count))


def by_chance(odds):
    """A task LM that is right with the odds of the first of these words in its prompt, else every other time.

    Equal questions get the same answers, one after the other, in whichever thread they are asked.
    """
    asked, lock = Counter(), threading.Lock()

    def answer(system, user):
        with lock:
            asked[system, user] += 1
            draw = random.Random(f"{system}/{user}/{asked[system, user]}").random()
        return f"y{user}" if draw < next((odd for word, odd in odds.items() if word in system), 0.5) else "no"

    return rule_lm(answer)


def test_the_floor_is_two_standard_errors_of_the_difference():
    # example 0: 0 and 1, variance 1/2 and 1/4 of its mean; example 1: no variance; of the mean of both 1/16
    once, never = {0: 0.0, 1: 1.0, 2: 1.0, 3: 1.0}, {0: 1.0, 1: 0.0, 2: 1.0, 3: 0.0}
    assert noise_floor([once, never], 2) == pytest.approx(2 * math.sqrt(1 / 16))
    assert noise_floor([once, once], 2) == pytest.approx(2 * math.sqrt(2 / 16))
    assert noise_floor([{0: 0.0, 1: 1.0}, {0: 1.0, 1: 0.0}], 2) == 0.0
    assert averaged(once, 2) == {0: 0.5, 1: 1.0}


@pytest.mark.parametrize(("repeats", "count"), [(2, 8), (5, 4)])
def test_the_floor_tells_the_spread_that_repeated_measurements_have(repeats, count):
    draw = random.Random(0)

    def measured():
        return {n: float(draw.random() < 0.5) for n in range(repeats * count)}

    pairs = [(measured(), measured()) for _ in range(400)]
    gains = [(sum(after.values()) - sum(before.values())) / (repeats * count) for before, after in pairs]
    spread = math.sqrt(sum(gain**2 for gain in gains) / len(gains))
    floor = math.sqrt(sum(noise_floor(pair, count) ** 2 for pair in pairs) / len(pairs))
    assert floor == pytest.approx(2 * spread, rel=0.1)


def test_a_gain_that_chance_gives_is_no_gain():
    script = ("Judge", "Grade", "Score", "Mark", "Value", "Rank", "Weigh", "Assess")
    lucky = compile_with(by_chance({}), *script, repeats=1)
    assert lucky.detailed_results["changes"] != {}  # the best of equals, by luck
    steady = compile_with(by_chance({}), *script)
    assert steady.detailed_results["changes"] == {}


def test_a_gain_beyond_chance_is_kept_and_told_by_example():
    tuned = compile_with(by_chance({"warm": 1.0}), "Be warm", "Judge")
    results = tuned.detailed_results
    assert instructions_of(tuned) == {"self": "Be warm"}
    (edit,) = tuned.edits
    assert {number for number, _ in edit.moved} <= set(range(8))
    assert edit.gain == pytest.approx(results["score_after"] - results["score_before"])
    assert 0 < results["noise_floor"] < edit.gain


def test_every_run_is_counted_and_capped():
    tuned = compile_with(rule_lm(obey), "Be warm", budget=Budget(metric_calls=40))
    assert tuned.detailed_results["metric_calls"] == 40
    with pytest.raises(SettingsError, match="at least the number of validation examples, 32"):
        compile_with(rule_lm(obey), "Be warm", budget=Budget(metric_calls=31))
    light = compile_with(rule_lm(obey), "Judge", repeats=2, budget="light")
    assert light.detailed_results["metric_calls"] <= 10 * 2 * 8


def test_what_is_kept_out_is_repeated_too_and_counted_by_example():
    tuned = compile_with(by_chance({"warm": 1.0}), "Be warm", selection={"holdout": 0.5})
    found = tuned.detailed_results["confirmation"]
    assert (found["verdict"], found["num_examples"]) == ("confirmed", 4)


def test_an_error_names_the_example_and_not_the_run():
    calls = []

    def metric(example, prediction):
        calls.append(example)
        if len(calls) > 10:
            raise KeyError("late")
        return 0.0

    with pytest.raises(MetricError, match=r"valset example 2: 'late'"):
        compile_with(rule_lm(obey), "Be warm", metric=metric, num_threads=1)


def test_too_many_unscored_runs_stop_the_run_and_name_the_example():
    calls = []

    def metric(example, prediction):
        calls.append(example)
        if len(calls) > 8:
            raise Unscored("tired")
        return 0.0

    with pytest.raises(
        MetricError, match=r"at most 6.4 of 32 valset .* the first at valset example 0: tired"
    ):
        compile_with(rule_lm(obey), "Be warm", metric=metric, num_threads=1)


@pytest.mark.skipif(not HAS_ENGINES, reason="this DSPy's LM doubles have no cache")
@pytest.mark.parametrize("own", [False, True])
def test_repeats_take_no_answer_from_the_cache_and_the_first_run_does(own):
    calls = []

    def answer(system, user):
        calls.append(user)
        return obey(system, user)

    lm = rule_lm(answer).copy(cache=True, model=f"rule/{random.random()}", temperature=1.0)
    program = dspy.Predict(dspy.Signature("review -> rating", "Rate the text."))
    program.lm = lm if own else None
    for _ in range(2):
        tuned = compile_with(lm, "Rate the text.", repeats=3, count=4, program=program)
    # the second time all twelve runs have been asked before, each as itself
    assert sorted(calls) == sorted(str(n) for n in range(4) for _ in range(3))
    assert tuned.lm is program.lm


def test_repeats_at_temperature_0_are_refused_before_any_call():
    lm = rule_lm(obey)
    with pytest.raises(
        SettingsError, match=r"repeats must be 1 where every LM answers at temperature 0.*got 4"
    ):
        compile_with(lm, "Be warm", temperature=0.0)
    assert lm.engine.num_calls == 0
