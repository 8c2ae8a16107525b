"""Scales: a metric above `max_score` is told, and ends nothing early."""

import dspy
import pytest

from dspy_diffusion_infill import CompactAdapter, Denoising, DiffusionInfill, Selection
from tests.doubles import ScriptedInfiller, exact, obey, reviews, rule_lm


@pytest.fixture(autouse=True)
def lm():
    with dspy.context(lm=rule_lm(obey), adapter=CompactAdapter(), num_threads=2):
        yield


def results(metric, text="Rate the text.", **settings):
    optimizer = DiffusionInfill(
        metric,
        infiller=ScriptedInfiller("Be warm", "Judge", "Be warm and five"),
        denoising=Denoising(num_candidates=3),
        budget="medium",
        **settings,
    )
    student = dspy.Predict(dspy.Signature("review -> rating", text))
    return optimizer.compile(student, trainset=reviews()).detailed_results


def stars(example, prediction, trace=None):
    return 1 + 4 * exact(example, prediction)


@pytest.mark.parametrize("text", ["Rate the text.", "Be warm."])  # every score is 1; some are 5
def test_a_start_that_is_mostly_wrong_on_a_scale_of_stars_is_not_perfect(text, caplog):
    found = results(stars, text)
    assert found["instructions_after"] == {"self": "Be warm and five"}
    assert found["score_after"] == 1 + 4 * 10 / 16
    assert found["stop_reason"] == "no window helped in 2 passes"
    told = [record.message for record in caplog.records if "max_score" in record.message]
    assert told == [
        "max_score must be the highest score that the metric can give; it is 1, and the metric gave 5. No "
        "candidate is dropped early, and no score ends the run. Say Selection(max_score=...)."
    ]


def test_a_perfect_score_on_a_scale_that_was_given_ends_the_run(caplog):
    perfect = "Be warm: five is best, warm five best."
    found = results(
        lambda e, p: 5.0 * (int(e.review) > 14 or exact(e, p)), perfect, selection=Selection(max_score=5)
    )
    assert (found["stop_reason"], found["metric_calls"]) == ("perfect score", 16)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_a_metric_that_takes_no_reference_outputs_is_believed():
    def of_the_run(example, prediction):
        if prediction.rating == example.rating:
            raise KeyError("not a run")
        return 1.0

    assert results(of_the_run)["stop_reason"] == "perfect score"


def test_a_failed_run_is_worth_the_lowest_value_of_the_metric_to_a_set_metric():
    seen = []

    def mean(examples, values):
        seen.extend(values)
        return sum(values) / len(values) / 10

    class Fragile(dspy.Module):
        def __init__(self):
            super().__init__()
            self.rate = dspy.Predict("review -> rating")

        def forward(self, review):
            if review == "3":
                raise type("ContextWindowExceededError", (Exception,), {})("too long")
            return self.rate(review=review)

    optimizer = DiffusionInfill(
        lambda e, p: 4 + exact(e, p), infiller=ScriptedInfiller("x"), selection=Selection(set_metric=mean)
    )
    optimizer.compile(Fragile(), trainset=reviews(8))
    assert min(seen) == 4.0
