"""Evaluation: each candidate once on each example, and no failure that passes for a score."""

import gc
import threading
import time
import weakref

import dspy
import pytest

from dspy_diffusion_infill.errors import EvaluationError, MetricError, Unscored
from dspy_diffusion_infill.prompts.compact import CompactAdapter
from dspy_diffusion_infill.search import failures
from dspy_diffusion_infill.search.budget import Budget, Meter
from dspy_diffusion_infill.search.evaluation import Evaluator
from dspy_diffusion_infill.search.good_calls import good_calls
from dspy_diffusion_infill.search.metrics import Metric
from dspy_diffusion_infill.search.variants import Variants
from tests.doubles import exact, obey, reviews, rule_lm

VAGUE, WARM = {"self": "Rate it."}, {"self": "Be warm."}


@pytest.fixture
def lm():
    lm = rule_lm(obey)
    with dspy.context(lm=lm, adapter=CompactAdapter(), trace=["untouched"]):
        yield lm
        assert dspy.settings.trace == ["untouched"]


def evaluator(metric=exact, program=None, budget=None, num_threads=2, max_unscored=0.2, meter=None):
    return Evaluator(
        program or dspy.Predict(dspy.Signature("review -> rating", "Rate it.")),
        metric=Metric(metric),
        examples=reviews(8),
        role="valset",
        meter=meter or Meter(budget or Budget(metric_calls=1000)),
        num_threads=num_threads,
        max_unscored=max_unscored,
    )


def run(board, *candidates, **settings):
    return board.run([(c, n) for c in candidates for n in board.examples], **settings)


def test_scores_add_up_and_nothing_runs_twice(lm):
    board = evaluator()
    assert board.mean(WARM) is None
    assert run(board, VAGUE, WARM)
    assert (board.total(VAGUE), board.total(WARM), board.mean(WARM)) == (0.0, 5.0, 5 / 8)
    assert run(board, VAGUE, WARM, dict(WARM))
    assert lm.engine.num_calls == 16


def test_a_score_found_elsewhere_is_not_paid_for(lm):
    board = evaluator()
    board.add(WARM, 7, 1.0)
    run(board, WARM)
    assert board.total(WARM) == 6.0
    assert lm.engine.num_calls == 7


def test_the_budget_is_spent_in_order_and_never_overrun(lm):
    board = evaluator(budget=Budget(metric_calls=11), num_threads=4)
    assert not run(board, WARM, VAGUE)
    assert lm.engine.num_calls == 11
    assert (board.num_scored(WARM), board.num_scored(VAGUE)) == (8, 3)


def test_time_that_runs_out_stops_the_runs_and_returns_their_permits(lm):
    now = [0.0]
    meter = Meter(Budget(metric_calls=100, seconds=10), clock=lambda: now[0])

    def slow(example, prediction):
        now[0] += 4
        return 1.0

    board = evaluator(slow, meter=meter, num_threads=1)
    assert not run(board, WARM)
    assert (board.num_scored(WARM), meter.spent) == (3, 3)


def test_an_answer_that_cannot_be_parsed_counts_as_the_lowest_score():
    garbled = rule_lm(lambda system, user: "x: nothing" if "warm" in system else "rating: 1\nwhy: so")
    program = dspy.Predict(dspy.Signature("review -> rating: int, why", "Rate it."))
    with dspy.context(lm=garbled, adapter=CompactAdapter()):
        board = evaluator(lambda e, p: -2.0, program)
        run(board, VAGUE, WARM)
    assert (board.total(VAGUE), board.total(WARM), board.failures.total) == (-16.0, -16.0, 8)
    assert (board.num_failed(VAGUE), board.num_failed(WARM)) == (0, 8)


class Broken(dspy.Module):
    def __init__(self, error):
        super().__init__()
        self.rate, self.error = dspy.Predict("review -> rating"), error

    def forward(self, review):
        raise self.error


@pytest.mark.parametrize("error", [KeyError("field"), ValueError("no LM"), RuntimeError("out of memory")])
def test_any_other_failure_is_raised_and_names_the_example(error, lm):
    board = evaluator(program=Broken(error))
    with pytest.raises(EvaluationError, match=f"failed on valset example 0: {type(error).__name__}"):
        run(board, {"rate": "Rate it."})


class Fragile(dspy.Module):
    """Raises on answers that it cannot read, or on everything once it is broken."""

    def __init__(self, error):
        super().__init__()
        self.rate, self.error, self.state = dspy.Predict("review -> rating"), error, {"broken": False}

    def forward(self, review):
        rating = self.rate(review=review).rating
        if self.state["broken"] or rating == "no":
            raise self.error
        return dspy.Prediction(rating=rating)

    def __deepcopy__(self, memo):
        copied = Fragile(self.error)
        copied.rate, copied.state = self.rate.deepcopy(), self.state
        return copied


GOOD, ODD, BAD = {"rate": "Be warm: five."}, {"rate": "Be warm."}, {"rate": "Judge."}


def fragile(error=None, **settings):
    """GOOD answers all of 8 examples, ODD 5 of them, BAD none."""
    return evaluator(program=Fragile(error or ValueError("invalid literal for int()")), **settings)


def test_an_error_that_a_candidate_brings_about_is_its_failure(lm):
    board = fragile()
    assert run(board, GOOD)
    assert run(board, BAD, ODD)
    assert [board.num_failed(candidate) for candidate in (GOOD, BAD, ODD)] == [0, 8, 3]
    assert (board.total(BAD), board.total(ODD)) == (0.0, 5.0)
    assert board.failures.counts == {"ValueError: invalid literal for int()": 11}
    assert (board._meter.spent, lm.engine.num_calls) == (24, 25)  # GOOD ran once more, unscored


def test_a_start_may_raise_on_one_odd_answer_but_not_on_many(lm):
    program = Fragile(ValueError("bad"))
    examples = reviews(16)
    board = Evaluator(program, metric=Metric(exact), examples=examples, role="valset", num_threads=2,
                      meter=Meter(Budget(metric_calls=99)), max_unscored=0.2)  # fmt: skip
    most = {"rate": "Be warm: five is best."}  # 15 of 16
    assert run(board, most)
    assert board.num_failed(most) == 1
    with pytest.raises(EvaluationError, match="failed on valset example 5: ValueError"):
        run(fragile(num_threads=1), ODD)


@pytest.mark.parametrize(
    ("well", "ends"), [((True,), False), ((False, False, True), False), ((False,) * 3, True)]
)
def test_a_program_that_breaks_by_chance_is_tried_again(lm, monkeypatch, well, ends):
    board, tries = fragile(), list(well)
    run(board, GOOD)
    monkeypatch.setattr(board._runner, "goes_well", lambda: tries.pop(0))
    if ends:
        with pytest.raises(EvaluationError, match="failed on valset example 0: ValueError"):
            run(board, BAD)
    else:
        assert run(board, BAD)
        assert board.num_failed(BAD) == 8
    assert tries == []


def test_a_program_that_breaks_on_the_way_is_no_candidates_fault(lm):
    board = fragile()
    run(board, GOOD)
    board._variants._program.state["broken"] = True
    with pytest.raises(EvaluationError, match="failed on valset example 0: ValueError"):
        run(board, BAD)


def test_a_module_of_dspys_that_gives_up_is_the_candidates_failure(lm):
    namespace = {"__name__": "dspy.predict.program_of_thought"}
    exec("def give_up(): raise RuntimeError('Max hops reached.')", namespace)

    class Coding(Broken):
        def forward(self, review):
            namespace["give_up"]()

    board = evaluator(program=Coding(None))
    run(board, {"rate": "Rate it."})
    assert board.failures.counts == {"RuntimeError: Max hops reached.": 8}


def test_no_prediction_is_a_failure(lm):
    class Nothing(Broken):
        def forward(self, review):
            return None

    board = evaluator(program=Nothing(None))
    run(board, {"rate": "Rate it."})
    assert board.failures.counts == {"The program returned no prediction.": 8}


def failing(*errors, of=exact):
    """A metric that raises these first, one a call."""
    left = list(errors)

    def metric(example, prediction):
        if left:
            raise left.pop(0)
        return of(example, prediction)

    return metric


def test_an_outage_is_waited_out_and_costs_no_score(lm, monkeypatch):
    monkeypatch.setattr(failures, "PAUSES", (0, 0))
    board = evaluator(failing(ConnectionError("reset"), TimeoutError("late")), num_threads=1)
    assert run(board, WARM)
    assert (board.total(WARM), board.failures.total, board.outage, board._meter.spent) == (5.0, 0, None, 8)


def test_an_outage_that_lasts_ends_the_runs_keeps_the_scores_and_returns_permits(lm, monkeypatch):
    monkeypatch.setattr(failures, "PAUSES", (0, 0))
    calls = []

    def metric(example, prediction):
        calls.append(example.review)
        if len(calls) > 3:
            raise ConnectionError("gone")
        return 1.0

    board = evaluator(metric, num_threads=1)
    assert not run(board, WARM)
    assert calls == ["0", "1", "2", "3", "3", "3"]
    assert (board.num_scored(WARM), board.total(WARM), board._meter.spent) == (3, 3.0, 3)
    assert board.outage == "metric raised ConnectionError on valset example 3: gone"
    assert not run(board, VAGUE)
    assert len(calls) == 6


@pytest.mark.parametrize("error", [KeyError("field"), type("LMAuthError", (Exception,), {})("wrong key")])
def test_an_error_stops_the_other_threads_at_once(error, lm):
    raised = threading.Event()
    calls = []

    def metric(example, prediction):
        calls.append(example.review)
        if example.review == "1":
            raised.set()
            raise error
        raised.wait()
        time.sleep(0.05)  # until the error is known
        return 1.0

    board = evaluator(metric, num_threads=2)
    with pytest.raises(MetricError, match="example 1"):
        run(board, WARM)
    assert sorted(calls) == ["0", "1"]
    assert board._meter.spent == 2


def test_pauses_end_with_the_time_and_the_outage_is_told(lm, monkeypatch):
    monkeypatch.setattr(failures, "PAUSES", (60, 60))
    board = evaluator(failing(*[ConnectionError("gone")] * 9), budget=Budget(seconds=0.2), num_threads=1)
    began = time.monotonic()
    assert not run(board, WARM)
    assert time.monotonic() - began < 5
    assert board.outage == "metric raised ConnectionError on valset example 0: gone"


def test_a_metric_that_raises_stops_the_run(lm):
    with pytest.raises(MetricError, match="KeyError on valset example 2"):
        run(evaluator(lambda e, p: {"0": 1, "1": 1}[e.review]), WARM)


def test_an_example_that_cannot_be_judged_counts_for_no_candidate(lm):
    def unsure(example, prediction):
        if example.review == "1" and prediction.rating == "y1":
            raise Unscored("no verdict")
        return exact(example, prediction)

    board = evaluator(unsure)
    run(board, VAGUE, WARM)
    assert board.left_out.reasons == {1: "no verdict"}
    assert 1 not in board.examples
    assert (board.mean(VAGUE), board.mean(WARM)) == (0.0, 4 / 7)


def test_too_many_unscored_examples_stop_the_run(lm):
    def never(example, prediction):
        raise Unscored("the judge is down")

    with pytest.raises(MetricError, match=r"at most 1.6 of 8 .* got 8, .*example 0: the judge is down"):
        run(evaluator(never), WARM)


def test_hard_examples_come_first(lm):
    """By the scores of all candidates: 5 to 7 are wrong in two runs of two, 0 in one; 3 was never run."""
    board = evaluator()
    board.run([(WARM, n) for n in (0, 1, 2, 5, 6, 7)] + [(VAGUE, n) for n in (0, 5, 6, 7)] + [(WARM, 4)])
    board.put_hard_examples_first()
    assert board.examples == [5, 6, 7, 0, 1, 2, 4, 3]


def test_calls_of_good_runs_are_kept_by_predictor(lm):
    board = evaluator(program=dspy.ChainOfThought(dspy.Signature("review -> rating", "Rate it.")))
    cot = {"predict": "Be warm."}
    reasoned = rule_lm(lambda system, user: f"reasoning: r\nrating: {obey(system, user)}")
    with dspy.context(lm=reasoned):
        run(board, cot, keep_traces=True)
    calls = good_calls(board, cot)
    assert [call["review"] for call in calls["predict"]] == ["0", "1", "2", "3", "4"]
    assert calls["predict"][2] == {"review": "2", "reasoning": "r", "rating": "y2"}


def test_calls_of_copies_are_those_of_their_originals_where_these_can_be_told(lm):
    def once(program):
        return dspy.BestOfN(program, N=1, reward_fn=lambda inputs, prediction: 1.0, threshold=1.0)

    board = evaluator(program=once(dspy.Predict(dspy.Signature("review -> rating", "Rate it."))))
    run(board, {"module": "Be warm."}, keep_traces=True)
    assert len(good_calls(board, {"module": "Be warm."})["module"]) == 5

    class Twins(dspy.Module):
        def __init__(self):
            super().__init__()
            signature = dspy.Signature("review -> rating", "Rate it.")
            self.one, self.two = once(dspy.Predict(signature)), dspy.Predict(signature)

        def forward(self, review):
            return self.one(review=review)

    same = {"one.module": "Rate it.", "two": "Rate it."}
    board = evaluator(lambda e, p: 1.0, program=Twins())
    run(board, same, keep_traces=True)
    assert good_calls(board, same) == {}


def test_runs_below_the_mean_are_not_good(lm):
    board = evaluator(lambda e, p: int(e.review) / 10)  # 0.0, 0.1, ..., 0.7: the mean is 0.35
    run(board, VAGUE, keep_traces=True)
    assert [call["review"] for call in good_calls(board, VAGUE)["self"]] == ["4", "5", "6", "7"]


def test_runs_that_all_scored_lowest_are_not_good(lm):
    board = evaluator()
    run(board, VAGUE, keep_traces=True)
    assert good_calls(board, VAGUE) == {}


def test_a_context_of_the_caller_reaches_the_threads(lm):
    seen = set()

    def metric(example, prediction):
        seen.add((threading.current_thread().name, dspy.settings.get("note")))
        return 1.0

    with dspy.context(note="kept"):
        run(evaluator(metric, num_threads=4), WARM)
    assert {note for _, note in seen} == {"kept"}
    assert threading.current_thread().name not in {name for name, _ in seen}


def test_the_history_does_not_grow(lm):
    run(evaluator(), WARM)
    assert lm.history == []


def test_a_programs_data_are_held_by_few_candidates_and_those_that_compete_are_made_once():
    class Data:
        pass

    program = dspy.Predict("review -> rating")
    program.index = Data()
    variants, alive = Variants(program, threading.Event()), weakref.WeakSet()
    for n in range(60):
        alive.add(variants.get({"self": f"Rate {n}."}, 0).index)
    gc.collect()
    assert program.index not in alive
    assert len(alive) <= 20
    again = [[variants.get({"self": f"Judge {n}."}, 0) for n in range(17)] for _ in range(2)]
    assert all(one is other for one, other in zip(*again, strict=True))
