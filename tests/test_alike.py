"""Runs that stand for those of other candidates: none is paid for twice, and scores stay as they were."""

import contextlib
import itertools
import re
import threading
import time

import dspy
import pytest
from dspy.utils.exceptions import AdapterParseError

from dspy_diffusion_infill import DiffusionInfill, SlidingWindow
from dspy_diffusion_infill.prompts.compact import CompactAdapter
from dspy_diffusion_infill.search.budget import Budget, Meter
from dspy_diffusion_infill.search.evaluation import Evaluator
from dspy_diffusion_infill.search.journal import open_journal
from dspy_diffusion_infill.search.metrics import Metric
from tests.doubles import HAS_ENGINES, ScriptedInfiller, exact, reviews, rule_lm

TEXTS = ("Rate it.", "Be warm.", "Be kind.")
BASE = {"even": TEXTS[0], "odd": TEXTS[0]}
WARM_ODD = {**BASE, "odd": TEXTS[1]}
KIND_ODD = {**BASE, "odd": TEXTS[2]}


class Router(dspy.Module):
    """Asks one of two predictors."""

    def __init__(self):
        super().__init__()
        self.even, self.odd = (dspy.Predict(dspy.Signature("review -> rating", TEXTS[0])) for _ in "ab")

    def forward(self, review):
        return (self.odd if int(review) % 2 else self.even)(review=review)


class Asks(Router):
    """Asks in a way of its own first."""

    def __init__(self, ask):
        super().__init__()
        self.ask = ask

    def forward(self, review):
        self.ask(self, review)
        return super().forward(review)


def by_text(system, user):
    """Warm instructions are right on 0 to 4, kind ones on 0 to 6."""
    good = 5 if "warm" in system else 7 if "kind" in system else 0
    number = user.split()[-1]
    return f"y{number}" if number.isdigit() and int(number) < good else "no"


@pytest.fixture
def lm():
    lm = rule_lm(by_text)
    with dspy.context(lm=lm, adapter=CompactAdapter()):
        yield lm


def evaluator(program=None, budget=1000, journal=None, num_threads=2, **settings):
    return Evaluator(
        program or Router(),
        metric=Metric(exact),
        examples=reviews(8),
        role="valset",
        meter=Meter(Budget(metric_calls=budget)),
        num_threads=num_threads,
        max_unscored=0.2,
        journal=journal,
        **settings,
    )


def run(board, *candidates):
    return board.run([(c, n) for c in candidates for n in board.examples])


def test_a_candidate_is_run_only_where_its_predictor_was_called(lm):
    board = evaluator(budget=12)
    assert run(board, BASE)
    assert (board.missing(WARM_ODD), board.num_scored(WARM_ODD)) == ([1, 3, 5, 7], 4)
    assert run(board, WARM_ODD)
    assert lm.engine.num_calls == 12
    assert board.scores(WARM_ODD) == {n: float(n in (1, 3)) for n in range(8)}
    assert board.mean(WARM_ODD) == 2 / 8


def test_what_the_metric_asks_an_lm_is_no_call_of_the_programs(lm):
    def judged(example, prediction):
        dspy.Predict("review -> rating")(review=example.review)
        return exact(example, prediction)

    board = Evaluator(
        Router(),
        metric=Metric(judged),
        examples=reviews(8),
        role="valset",
        meter=Meter(Budget(metric_calls=12)),
        num_threads=2,
        max_unscored=0.2,
    )
    assert run(board, BASE)
    assert board.missing(WARM_ODD) == [1, 3, 5, 7]


def test_scores_are_those_of_a_board_that_shares_nothing(lm):
    candidates = [dict(zip(BASE, texts, strict=True)) for texts in itertools.product(TEXTS, TEXTS)]
    shared = evaluator()
    for candidate in candidates:
        run(shared, candidate)
        alone = evaluator()
        run(alone, candidate)
        assert shared.scores(candidate) == alone.scores(candidate)
    assert lm.engine.num_calls == (3 * 4 + 3 * 4) + 9 * 8


def test_a_predictor_that_was_never_called_may_be_read_otherwise(lm):
    board = evaluator()
    board.run([(BASE, n) for n in (0, 2, 4)])
    assert board.missing(WARM_ODD) == list(range(8))
    board.run([(BASE, 1)])
    assert board.missing(WARM_ODD) == [1, 3, 5, 6, 7]


def directly(program, review):
    dspy.settings.lm(program.odd.signature.instructions)


def made_anew(program, review):
    dspy.Predict(program.odd.signature)(review=review)


def by_a_copy(program, review):
    program.odd.deepcopy()(review=review)


def in_a_thread_without_context(program, review):
    def work():
        with contextlib.suppress(Exception):  # no LM there
            program.even(review="0")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


@pytest.mark.parametrize("ask", [directly, made_anew, by_a_copy, in_a_thread_without_context])
def test_no_run_stands_for_another_where_calls_cannot_be_told(ask, lm):
    board = evaluator(Asks(ask), num_threads=1)
    run(board, BASE)
    assert board.missing(WARM_ODD) == list(range(8))


def test_a_run_that_calls_nothing_may_read_anything(lm):
    class Longest(Router):
        def forward(self, review):
            long = max((self.even, self.odd), key=lambda each: len(each.signature.instructions))
            return super().forward(review) if review == "0" else dspy.Prediction(rating=str(long))

    board = evaluator(Longest())
    run(board, BASE)
    assert board.missing({**BASE, "even": TEXTS[1]}) == list(range(8))


def test_calls_are_told_in_threads_of_dspy(lm):
    def in_parallel(program, review):
        example = dspy.Example(review="0").with_inputs("review")
        dspy.Parallel(num_threads=2, disable_progress_bar=True)([(program.even, example)] * 2)

    board = evaluator(Asks(in_parallel), num_threads=1)  # tqdm's own threads are not safe beside one another
    run(board, BASE)
    assert board.missing(WARM_ODD) == [1, 3, 5, 7]
    assert board.missing({**BASE, "even": TEXTS[1]}) == list(range(8))


def test_what_a_programs_own_threads_called_has_one_order(lm):
    def slowly(system, user):
        time.sleep(0.02 * (3 - int(user.split()[-1]) % 4))  # the later ones answer first
        return by_text(system, user)

    def in_parallel(program, review):
        asked = [dspy.Example(review=f"{n}").with_inputs("review") for n in range(4)]
        dspy.Parallel(num_threads=4, disable_progress_bar=True)([(program.even, one) for one in asked])

    orders = []
    for answer in (by_text, slowly):
        lm.engine.answer = answer
        board = evaluator(Asks(in_parallel), num_threads=1, keep_traces=True)
        board.run([(BASE, 0)])
        orders.append([step.inputs["review"] for step in board.runs(BASE)[0].trace])
    assert orders[0] == orders[1]
    assert sorted(orders[0]) == ["0", "0", "1", "2", "3"]


def test_a_frozen_predictor_is_none_of_the_candidates(lm):
    class Frozen(Router):
        def __init__(self):
            super().__init__()
            self.first = dspy.ChainOfThought("review -> rating")
            self.first._compiled = True

        def forward(self, review):
            with contextlib.suppress(AdapterParseError):
                self.first(review=review)
            return super().forward(review)

    board = evaluator(Frozen())
    run(board, BASE)
    assert board.missing(WARM_ODD) == [1, 3, 5, 7]


def test_an_lm_whose_calls_are_not_heard_leaves_every_run_to_itself(lm):
    class Deaf(dspy.BaseLM):
        def __call__(self, prompt=None, messages=None, **kwargs):
            return [by_text(messages[0]["content"], messages[-1]["content"])]

    with dspy.context(lm=Deaf(model="deaf")):
        board = evaluator()
        run(board, BASE)
    assert board.missing(WARM_ODD) == list(range(8))


@pytest.mark.skipif(not HAS_ENGINES, reason="this DSPy reads an empty answer")
def test_a_failure_stands_for_no_other(lm):
    lm.engine.answer = lambda system, user: "" if user.split()[-1] == "2" else by_text(system, user)
    board = evaluator()
    run(board, BASE)
    assert board.num_failed(BASE) == 1
    assert board.missing(WARM_ODD) == [1, 2, 3, 5, 7]


def test_every_repeat_stands_for_itself(lm):
    board = evaluator(repeats=2)
    board.run([(BASE, n) for n in (0, 1, 8)])
    assert board.missing(WARM_ODD) == [n for n in range(16) if n not in (0, 8)]


def test_a_later_process_knows_what_was_called(lm, tmp_path):
    for missing in ([1, 3, 5, 7], []):
        with open_journal(tmp_path, {}, resume=True) as journal:
            board = evaluator(journal=journal)
            run(board, BASE)
            assert board.missing(WARM_ODD) == [1, 3, 5, 7]
            run(board, WARM_ODD)
        assert (board.num_resumed == 12) is not bool(missing)
    assert lm.engine.num_calls == 12


@pytest.mark.parametrize("change", ["lm", "config", "attribute"])
def test_runs_of_a_program_that_is_set_otherwise_are_not_taken_for_its_own(lm, tmp_path, change):
    def program(changed):
        made = Router()
        if changed and change == "lm":
            made.odd.lm = lm.copy(model="rule/other")
        elif changed and change == "config":
            made.odd.config["temperature"] = 0.7
        elif changed:
            made.top = 5
        return made

    with open_journal(tmp_path, {}, resume=True) as journal:
        run(evaluator(program(changed=False), journal=journal), BASE)
    with open_journal(tmp_path, {}, resume=True) as journal:
        other = evaluator(program(changed=True), journal=journal)
        run(other, BASE)
        same = evaluator(program(changed=False), journal=journal)
        run(same, BASE)
    assert (other.num_resumed, same.num_resumed) == (0, 8)


@pytest.mark.parametrize(
    ("lock", "told", "calls"), [("auto", True, 31), ({"odd": [re.compile("(?s).+")]}, False, 19)]
)
def test_a_predictor_that_nothing_calls_is_told_and_can_be_left_alone(lm, caplog, lock, told, calls):
    infiller = ScriptedInfiller("Be warm", "Be kind", "Be calm")
    optimizer = DiffusionInfill(exact, infiller=infiller, lock=lock, masking=SlidingWindow(passes=1))
    evens = [dspy.Example(review=f"{n}", rating=f"y{n}").with_inputs("review") for n in range(0, 10, 2)]
    tuned = optimizer.compile(Router(), trainset=evens)
    assert "kind" in tuned.even.signature.instructions
    assert ("called odd: edits there can show no gain" in caplog.text) is told
    assert lm.engine.num_calls == calls
