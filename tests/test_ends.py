"""Ends: however a run or its base ends, its best is kept, and nothing worse than the student is returned."""

import contextlib

import dspy
import pytest
from dspy.teleprompt import COPRO, Teleprompter

from dspy_diffusion_infill import Budget, CompactAdapter, Denoising, DiffusionInfill
from dspy_diffusion_infill.errors import EvaluationError
from dspy_diffusion_infill.prompts.program import instructions_of
from dspy_diffusion_infill.search import failures
from tests.doubles import ScriptedInfiller, exact, obey, reviews, rule_lm
from tests.test_base import PROPOSED, propose_or_obey

CALLS = []


@pytest.fixture(autouse=True)
def lm(monkeypatch):
    CALLS.clear()
    monkeypatch.setattr(failures, "PAUSES", (0,))
    lm = rule_lm(obey)
    with dspy.context(lm=lm, adapter=CompactAdapter(), num_threads=2):
        yield lm


def student(text="Rate the text."):
    return dspy.Predict(dspy.Signature("review -> rating", text))


def optimizer(*script, metric=exact, **settings):
    settings = {"denoising": Denoising(num_candidates=3), "num_threads": 1, **settings}
    return DiffusionInfill(metric, infiller=ScriptedInfiller(*script or ("Be warm",)), **settings)


def interrupting(at, error=KeyboardInterrupt):
    """A metric that the user interrupts at a call, or that raises there."""

    def metric(example, prediction, trace=None):
        CALLS.append(example.review)
        if len(CALLS) == at:
            raise error
        return exact(example, prediction)

    return metric


@pytest.mark.filterwarnings("ignore")  # COPRO sets a deprecated prefix
def test_ctrl_c_while_the_base_runs_returns_its_best():
    metric = interrupting(40)
    base = COPRO(metric=metric, breadth=3, depth=1)
    with dspy.context(lm=rule_lm(propose_or_obey), adapter=dspy.ChatAdapter(), num_threads=1):
        tuned = optimizer(metric=metric, base=base, budget="heavy").compile(student(), trainset=reviews())
    assert tuned.detailed_results["stop_reason"] == "interrupted"
    assert instructions_of(tuned) == {"self": PROPOSED}
    assert len(CALLS) == 40


class Deaf(Teleprompter):
    """Goes on after Ctrl-C, as a thread does that was about to begin."""

    def __init__(self, metric) -> None:
        super().__init__()
        self.metric = metric

    def compile(self, student, *, trainset):
        with contextlib.suppress(KeyboardInterrupt):
            self.metric(trainset[0], dspy.Prediction(rating="1"))
        self.metric(trainset[1], dspy.Prediction(rating="1"))
        return student


def test_a_base_that_goes_on_after_ctrl_c_pays_for_no_more_calls():
    metric = interrupting(1)
    tuned = optimizer(metric=metric, base=Deaf(metric)).compile(student(), trainset=reviews())
    assert tuned.detailed_results["stop_reason"] == "interrupted"
    assert len(CALLS) == 1


def test_ctrl_c_while_the_start_is_scored_returns_the_student():
    tuned = optimizer(metric=interrupting(4)).compile(student(), trainset=reviews())
    assert tuned.detailed_results["stop_reason"] == "interrupted"
    assert instructions_of(tuned) == {"self": "Rate the text."}
    assert len(CALLS) == 4


@pytest.mark.parametrize("cap", [34, 40])
def test_a_nested_run_that_is_stopped_hands_over_its_best(cap):
    inner = optimizer("Be warm", budget=Budget(metric_calls=1000))
    long = student("Rate the text. " + " ".join(f"word{n} and more" for n in range(12)))
    tuned = optimizer("zzz", base=inner, budget=Budget(metric_calls=cap)).compile(long, trainset=reviews(8))
    results = tuned.detailed_results
    assert results["base_stopped"]
    assert "warm" in results["instructions_before"]["self"]
    assert results["metric_calls"] <= cap


def test_a_nested_run_that_is_stopped_before_it_has_begun_hands_over_the_student():
    inner = optimizer("Be warm", budget=Budget(metric_calls=1000))
    budget = Budget(metric_calls=40, base_share=0.1)
    tuned = optimizer("zzz", base=inner, budget=budget).compile(student(), trainset=reviews(8))
    assert tuned.detailed_results["instructions_before"] == {"self": "Rate the text."}


class Giving(Teleprompter):
    """Gives back one thing."""

    def __init__(self, found, metric=exact):
        super().__init__()
        self.found, self.metric = found, metric

    def compile(self, student, *, trainset):
        return self.found


@pytest.mark.parametrize("demos", [[], [dspy.Example(review="1", rating="y1")]])
def test_a_base_that_makes_the_student_worse_is_ignored(demos):
    worse = student("Judge.")
    worse.demos = demos
    own = student("Be warm: five.")
    tuned = optimizer("zzz", base=Giving(worse)).compile(own, trainset=reviews())
    assert tuned.detailed_results["score_before"] == 10 / 16
    assert (instructions_of(tuned), tuned.demos) == (instructions_of(own), [])


def test_a_better_base_is_the_start_with_its_demos():
    better = student("Be warm: five.")
    better.demos = [dspy.Example(review="1", rating="y1")]
    tuned = optimizer("zzz", base=Giving(better)).compile(student(), trainset=reviews())
    results = tuned.detailed_results
    assert (results["student_score"], results["score_before"]) == (0, 10 / 16)
    assert (instructions_of(tuned), tuned.demos) == (instructions_of(better), better.demos)


def test_the_scores_of_the_student_that_the_base_paid_for_are_not_paid_for_again(lm):
    class Evaluating(Giving):
        def compile(self, student, *, trainset):
            dspy.Evaluate(devset=trainset, metric=self.metric)(student)
            return super().compile(student, trainset=trainset)

    better = student("Be warm: five.")
    better.demos = [dspy.Example(review="1", rating="y1")]
    budget = Budget(metric_calls=32)
    tuned = optimizer(base=Evaluating(better), budget=budget).compile(student(), trainset=reviews())
    assert tuned.detailed_results["score_before"] == 10 / 16
    assert lm.engine.num_calls == 32


@pytest.mark.parametrize("found", [None, "a prompt"])
def test_a_base_that_gives_no_program_leaves_the_student(found):
    results = optimizer(base=Giving(found)).compile(student(), trainset=reviews()).detailed_results
    assert results["base_error"] == f"TypeError: compile must return a dspy.Module; got {found!r}."
    assert results["instructions_before"] == {"self": "Rate the text."}


class Failing(ScriptedInfiller):
    """Fills one window, then raises."""

    def __init__(self, error):
        super().__init__("Be warm")
        self.error = error

    def infill(self, canvases, *, num_candidates, seed):
        if self.canvases:
            raise self.error
        return super().infill(canvases, num_candidates=num_candidates, seed=seed)


def compile_with(infiller, **settings):
    return DiffusionInfill(exact, infiller=infiller, **settings).compile(student(), trainset=reviews())


def test_an_infiller_out_of_reach_ends_the_run_with_the_best_so_far():
    tuned = compile_with(Failing(ConnectionError("reset by peer")))
    assert tuned.detailed_results["stop_reason"] == "outage: ConnectionError: reset by peer"
    assert instructions_of(tuned) == {"self": "Be warm"}


def test_an_infiller_that_breaks_tells_the_best_so_far():
    with pytest.raises(RuntimeError, match="out of memory") as raised:
        compile_with(Failing(RuntimeError("CUDA out of memory")))
    assert raised.value.__notes__ == ["The best instructions so far score 0.3125: {'self': 'Be warm'}"]


def test_a_program_that_fails_on_every_example_is_told_with_the_reason():
    class Invalid(dspy.Predict):
        def forward(self, **inputs):
            raise type("LMInvalidRequestError", (Exception,), {})("Unsupported parameter: temperature")

    with pytest.raises(EvaluationError, match=r"failed on all 16, .*Unsupported parameter: temperature"):
        optimizer().compile(Invalid(student().signature), trainset=reviews())


def test_reasons_of_failures_are_in_the_results():
    own = dspy.Predict(dspy.Signature("review -> rating: int", "Rate the text."))
    lm = rule_lm(lambda system, user: "none" if user == "3" else user)
    with dspy.context(lm=lm):
        tuned = optimizer(metric=lambda e, p: 0.5).compile(own, trainset=reviews(8))
    results = tuned.detailed_results
    assert sum(results["failures"].values()) == results["num_failures"] > 0
    assert all("AdapterParseError" in reason for reason in results["failures"])


def test_a_start_without_a_readable_answer_is_searched_from_with_a_warning(caplog):
    """Another prompt may bring the form that is missing."""
    with dspy.context(lm=rule_lm(lambda system, user: "no form at all"), adapter=dspy.ChatAdapter()):
        tuned = optimizer().compile(student(), trainset=reviews())
    assert tuned.detailed_results["metric_calls"] > 16
    said = "No answer of the program can be read yet: on the validation examples it failed on all 16"
    assert said in caplog.text
