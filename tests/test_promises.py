"""What a result never is: worse than the start, lost by what comes late, missed for what no prompt mends."""

import re

import dspy
import pytest

from dspy_diffusion_infill import Budget, CompactAdapter, Denoising, DiffusionInfill, Selection, Unscored
from dspy_diffusion_infill.prompts.program import instructions_of
from dspy_diffusion_infill.search import failures
from tests.doubles import HAS_ENGINES, ScriptedInfiller, exact, reviews, rule_lm
from tests.test_selection import FAILED, Table


class Turns(ScriptedInfiller):
    """Fills every window of one canvas after the other with the next text of its script."""

    def _filling(self, seed, n):
        return super()._filling(min(len(self.canvases), len(self.script)) - 1 - n, n)


def compiled(answer, metric=exact, count=6, script=("Alpha", "Beta"), trainset=None, **settings):
    def answered(system, user):
        return answer(system, int(re.findall(r"\d+", user)[-1]))

    settings = {"budget": Budget(metric_calls=200), "denoising": Denoising(num_candidates=1), **settings}
    optimizer = DiffusionInfill(metric, infiller=Turns(*script), num_threads=1, **settings)
    with dspy.context(lm=rule_lm(answered), adapter=CompactAdapter()):
        student = dspy.Predict(dspy.Signature("review -> rating", "Rate the text."))
        return optimizer.compile(student, trainset=trainset or reviews(count), valset=reviews(count))


@pytest.mark.skipif(not HAS_ENGINES, reason="this DSPy reads an empty answer")
def test_a_failure_that_comes_to_weigh_more_does_not_leave_the_result_below_the_start(caplog):
    """Alpha fails on two, which is -1 each until Beta shows that -100 can be."""

    def answer(system, number):
        if "Beta" in system:
            return "-100" if number == 0 else "-1"
        if "Alpha" in system:
            return "0" if number < 4 else ""
        return "-1"

    tuned = compiled(answer, lambda e, p: float(p.rating), selection=Selection(max_score=0.0))
    found = tuned.detailed_results
    assert (found["score_before"], found["score_after"], found["edits"]) == (-1.0, -1.0, [])
    assert tuned.trial_logs[0]["accepted"]
    assert "the edits are worse than the start" in caplog.text


def unsure(answers):
    """A metric that cannot judge some answers."""

    def metric(example, prediction, trace=None):
        if prediction.rating in answers:
            raise Unscored("unsure")
        return exact(example, prediction)

    return metric


def test_too_many_unscored_examples_end_the_search_with_the_best_so_far(caplog):
    def answer(system, number):
        if "Beta" in system:
            return "odd"
        return f"y{number}" if number < ("Alpha" in system) * 3 + 1 else "no"

    tuned = compiled(answer, unsure({"odd"}))
    found = tuned.detailed_results
    assert "Alpha" in instructions_of(tuned)["self"]
    assert found["stop_reason"].startswith("unscored examples: The metric must leave at most 1.2 of 6")
    assert "The best so far is returned." in caplog.text


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        (unsure({"odd"}), "must leave at most 1.6 of 8 holdout examples"),
        (lambda e, p: 1 / (p.rating != "odd") * exact(e, p), "metric raised ZeroDivisionError on valset"),
    ],
)
def test_what_goes_wrong_at_confirmation_loses_no_result(metric, said, caplog):
    from tests.test_confirmation import HELD

    def answer(system, number):
        if "Alpha" not in system:
            return "no"
        return "odd" if number in HELD else f"y{number}"

    tuned = compiled(answer, metric, count=16, script=("Alpha",), selection=Selection(holdout=0.5))
    assert "Alpha" in instructions_of(tuned)["self"]
    assert tuned.detailed_results["confirmation"]["verdict"] == "unconfirmed"
    assert "The gain is unconfirmed: " in caplog.text
    assert said in caplog.text


def test_examples_that_no_prompt_can_have_answered_break_no_candidate():
    def answer(system, number):
        return "" if number < 3 else f"y{number}" if "Alpha" in system else "no"

    tuned = compiled(answer, count=24, script=("Alpha",))
    assert tuned.detailed_results["score_after"] == 21 / 24


@pytest.mark.skipif(not HAS_ENGINES, reason="this DSPy reads an empty answer")
def test_where_nothing_can_be_read_yet_candidates_are_dropped_soon():
    tuned = compiled(lambda system, number: "", count=24, script=("Alpha",))
    assert {
        len(trial["candidates"]) and trial["candidates"][0]["num_scored"] for trial in tuned.trial_logs
    } == {4}


def test_failures_that_the_incumbent_shares_break_no_candidate():
    incumbent, shares, fails = [FAILED] * 3 + [0.0] * 5, [FAILED] * 3 + [1.0] * 5, [FAILED] * 6 + [1.0] * 2
    table = Table([incumbent, shares, fails])
    assert table.select("race") == 1


def test_a_trainset_that_cannot_be_judged_ends_no_search():
    def answer(system, number):
        return "odd" if number >= 16 else f"y{number}" if "Alpha" in system else "no"

    trained = [example.copy(review=f"{16 + n}").with_inputs("review") for n, example in enumerate(reviews(6))]
    tuned = compiled(answer, unsure({"odd"}), condition_on="traces", trainset=trained)
    assert tuned.detailed_results["score_after"] == 1.0


class Slow(dspy.Module):
    """Runs into a timeout of its own with one text, while the LM answers all."""

    def __init__(self):
        super().__init__()
        self.ask = dspy.Predict(dspy.Signature("review -> rating", "Rate the text."))

    def forward(self, review):
        found = self.ask(review=review)
        if "Alpha" in self.ask.signature.instructions:
            raise TimeoutError("the tool")
        return found


def test_a_timeout_that_one_candidate_alone_runs_into_is_its_own_failure(monkeypatch):
    monkeypatch.setattr(failures, "PAUSES", (0.0,))
    infiller = ScriptedInfiller("Alpha", "Warm")
    optimizer = DiffusionInfill(
        exact, infiller=infiller, denoising=Denoising(num_candidates=2), budget="heavy"
    )
    lm = rule_lm(lambda system, user: f"y{user.split()[-1]}" if "Warm" in system else "no")
    with dspy.context(lm=lm, adapter=CompactAdapter()):
        tuned = optimizer.compile(Slow(), trainset=reviews(6))
    found = tuned.detailed_results
    assert (found["score_after"], found["stop_reason"]) == (1.0, "perfect score")
    assert list(found["failures"]) == ["TimeoutError: the tool"]
