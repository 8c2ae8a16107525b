"""Scores of a whole set: what they are made of, that nothing is raced, and how sure a gain in them is."""

import itertools
import math
import random
import re
import statistics

import dspy
import pytest

from dspy_diffusion_infill import Budget, CompactAdapter, Denoising, DiffusionInfill, Selection
from dspy_diffusion_infill.errors import MetricError, SettingsError
from dspy_diffusion_infill.search.gains import mean_score, paired_gain
from tests.doubles import ScriptedInfiller, reviews, rule_lm


def value(example, prediction):
    return float(prediction.rating)


def in_order(examples, values):
    """Share of the pairs of examples whose values are in the order of their numbers; ties are none."""
    pairs = list(itertools.combinations(zip((int(e.review) for e in examples), values, strict=True), 2))
    return sum((a[0] - b[0]) * (a[1] - b[1]) > 0 for a, b in pairs) / len(pairs)


def run(
    set_metric=in_order, metric=value, script=("Be warm", "Judge", "x"), count=12, budget="light", **selection
):
    """Told to be warm, the task LM rates review n with n - 5; else with 3."""

    def answer(system, user):
        number = int(re.findall(r"\d+", user)[-1])
        return str(number - 5) if "warm" in system else "3"

    settings = {"infiller": ScriptedInfiller(*script), "denoising": Denoising(num_candidates=len(script))}
    selection = Selection(set_metric=set_metric, **selection)
    optimizer = DiffusionInfill(value, selection=selection, budget=budget, num_threads=2, **settings)
    student = dspy.Predict(dspy.Signature("review -> rating", "Rate the text."))
    with dspy.context(lm=rule_lm(answer), adapter=CompactAdapter()):
        return optimizer.compile(student, trainset=reviews(count))


def test_the_best_order_wins_though_its_values_are_lower():
    results = run().detailed_results
    assert (results["score_before"], results["score_after"]) == (0.0, 1.0)
    assert results["instructions_after"] == {"self": "Be warm"}
    assert results["stop_reason"] == "perfect score"


def test_every_candidate_is_scored_on_every_example(caplog):
    with caplog.at_level("INFO", "dspy.teleprompt.diffusion_infill"):
        tuned = run()
    assert [filling["num_scored"] for filling in tuned.trial_logs[0]["candidates"]] == [12, 12, 12]
    assert tuned.detailed_results["metric_calls"] == 4 * 12
    assert "Every candidate is scored on every example, since set_metric needs them all." in caplog.text


def test_a_candidate_that_the_budget_cut_short_has_no_score():
    first = run(budget=Budget(metric_calls=32)).trial_logs[0]
    assert sorted(filling["num_scored"] for filling in first["candidates"]) == [4, 4, 12]
    for filling in first["candidates"]:
        assert (filling["score"] is None) == (filling["num_scored"] < 12)


def test_the_gain_of_an_edit_is_that_of_the_set():
    (edit,) = run().edits
    assert edit.gain == 1.0
    low, high = edit.interval
    assert 0.8 < low <= high <= 1.0  # an example drawn twice makes a pair that is in no order
    assert edit.moved[0] == (0, -8.0)


def test_a_result_is_confirmed_by_the_score_of_the_set():
    check = run(count=24, holdout=0.5).detailed_results["confirmation"]
    assert (check["verdict"], check["num_examples"], check["gain"]) == ("confirmed", 12, 1.0)


def test_a_run_that_failed_counts_as_the_lowest_value():
    def answer(system, user):
        return "none" if user == "7" else str(int(user) - 5)

    optimizer = DiffusionInfill(
        value, infiller=ScriptedInfiller("x"), selection=Selection(set_metric=in_order)
    )
    student = dspy.Predict(dspy.Signature("review -> rating: int", "Rate the text."))
    with dspy.context(lm=rule_lm(answer), adapter=CompactAdapter(), num_threads=1):
        tuned = optimizer.compile(student, trainset=reviews(8))
    # 7 is taken for the lowest, -5, so that seven of 28 pairs are not in order
    assert tuned.detailed_results["num_failures"] >= 1
    assert tuned.detailed_results["score_before"] == 21 / 28


@pytest.mark.parametrize(
    ("set_metric", "message"),
    [
        (
            lambda examples, values: math.nan,
            "set_metric must return a finite number, .*got nan on 12",
        ),
        (lambda examples, values: values[99], "set_metric raised IndexError"),
    ],
)
def test_a_set_metric_that_gives_no_number_stops_the_run(set_metric, message):
    with pytest.raises(MetricError, match=message):
        run(set_metric)


def test_a_set_metric_that_cannot_be_called_is_refused():
    with pytest.raises(SettingsError, match="set_metric must be callable, or None; got 'spearman'"):
        Selection(set_metric="spearman")


def test_an_interval_is_that_of_the_mean_of_paired_differences():
    draw = random.Random(1)
    before = {n: draw.random() for n in range(400)}
    after = {n: score + draw.choice([-1.0, 0.0, 0.0, 1.0, 1.0]) for n, score in before.items()}
    differences = [after[n] - before[n] for n in before]
    mean, margin = statistics.fmean(differences), 1.96 * statistics.stdev(differences) / 20
    gain = paired_gain(before, after, mean_score)
    assert gain.size == pytest.approx(mean)
    assert gain.interval == pytest.approx((mean - margin, mean + margin), abs=0.015)
    assert gain.moved == tuple((n, after[n] - before[n]) for n in range(400) if after[n] != before[n])


def test_examples_that_only_one_was_scored_on_do_not_count():
    gain = paired_gain({0: 0.0, 1: 1.0}, {0: 0.5, 2: 0.0}, mean_score)
    assert (gain.size, gain.interval, gain.moved) == (0.5, (0.5, 0.5), ((0, 0.5),))


def test_draws_without_a_number_are_left_out():
    def only_mixed(examples, scores):
        return math.nan if len(set(examples)) == 1 else sum(scores)

    assert paired_gain({0: 0.0, 1: 0.0}, {0: 1.0, 1: 1.0}, only_mixed).interval == (2.0, 2.0)
    assert paired_gain({0: 0.0}, {0: 1.0}, only_mixed).interval == (-math.inf, math.inf)
