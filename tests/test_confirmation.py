"""Confirmation: examples kept out of the search decide whether its result stays."""

import re

import dspy
import pytest

from dspy_diffusion_infill import Budget, CompactAdapter, Denoising, DiffusionInfill, Selection
from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.prompts.program import instructions_of
from dspy_diffusion_infill.search.task import make_task
from tests.doubles import ScriptedInfiller, exact, reviews, rule_lm
from tests.test_optimizer import Wasteful

HALF = Selection(holdout=0.5)


def student(text="Rate the text."):
    return dspy.Predict(dspy.Signature("review -> rating", text))


def split(share=0.5, seed=0, count=16, valset=None):
    return make_task(student(), reviews(count), valset).split(share, seed)


def numbers(examples):
    return {int(example.review) for example in examples}


def run(able, metric=exact, infiller=None, **settings):
    """Compile with a task LM that, told to be warm, can answer the numbers in `able`."""

    def answer(system, user):
        number = int(re.findall(r"\d+", user)[-1])
        return f"y{number}" if "warm" in system and number in able else "no"

    defaults = {"selection": HALF, "denoising": Denoising(num_candidates=1), "num_threads": 2}
    infiller = infiller or ScriptedInfiller("Be warm")
    settings = {**defaults, "budget": "medium", "infiller": infiller, **settings}
    optimizer = DiffusionInfill(metric, **settings)
    with dspy.context(lm=rule_lm(answer), adapter=CompactAdapter()):
        return optimizer.compile(student(), trainset=reviews())


KEPT, HELD = numbers(split().valset), numbers(split().holdout)


def test_a_seeded_half_is_kept_out_in_order():
    task = split()
    assert (len(KEPT), KEPT | HELD) == (8, set(range(16)))
    assert task.trainset is task.valset
    assert [example.review for example in task.holdout] == [str(n) for n in sorted(HELD)]
    assert numbers(split(seed=1).holdout) != HELD
    apart = split(valset=reviews(8))
    assert (len(apart.trainset), len(apart.valset), len(apart.holdout)) == (12, 4, 4)


@pytest.mark.parametrize("order", [1, -1])
def test_a_trainset_given_again_as_the_valset_goes_without_what_is_kept_out(order):
    task = split(valset=reviews(16)[::order])
    assert numbers(task.trainset) == numbers(task.valset) == set(range(16)) - numbers(task.holdout)
    assert task.selects_on_trainset == (order == 1)


def test_nothing_is_kept_out_of_a_valset_that_is_all_a_trainset_has(caplog):
    task = make_task(student(), reviews(1) * 2, reviews(1) * 4).split(0.5, 0)
    assert (len(task.trainset), len(task.valset), task.holdout) == (2, 4, [])
    assert "No example is kept out" in caplog.text


def test_only_a_large_set_gives_examples_up_by_itself():
    assert len(split("auto", count=79).holdout) == 0
    assert len(split("auto", count=80).holdout) == 20
    assert split(0, count=80).holdout == []


def test_a_gain_that_holds_is_confirmed():
    tuned = run(KEPT | HELD)
    results = tuned.detailed_results
    assert results["confirmation"] == {
        "verdict": "confirmed",
        "num_examples": 8,
        "gain": 1.0,
        "interval": (1.0, 1.0),
    }
    # the start and one candidate on 8 examples, and both on the 8 others
    assert results["metric_calls"] == 4 * 8


def test_a_gain_that_does_not_hold_is_taken_back():
    tuned = run(KEPT)
    results = tuned.detailed_results
    assert results["confirmation"]["verdict"] == "refuted"
    assert instructions_of(tuned) == results["instructions_after"] == {"self": "Rate the text."}
    assert (tuned.edits, results["edits"], results["score_after"]) == ([], [], 0.0)


def test_a_gain_that_may_be_chance_stays_unconfirmed():
    tuned = run(KEPT | {min(HELD)})
    confirmation = tuned.detailed_results["confirmation"]
    assert (confirmation["verdict"], confirmation["gain"], confirmation["interval"][0]) == (
        "unconfirmed",
        1 / 8,
        0,
    )
    assert instructions_of(tuned) == {"self": "Be warm"}


def test_without_examples_to_spare_nothing_is_confirmed(caplog):
    tuned = run(KEPT | HELD, selection=Selection())
    assert "The gain is unconfirmed" in caplog.text
    confirmation = tuned.detailed_results["confirmation"]
    assert (confirmation["verdict"], confirmation["num_examples"]) == ("unconfirmed", 0)
    assert instructions_of(tuned) == {"self": "Be warm"}


def test_neither_the_canvases_nor_the_base_nor_the_search_see_what_is_kept_out():
    seen, infiller = [], ScriptedInfiller("x")
    metric = lambda e, p, trace=None: seen.append(int(e.review)) or exact(e, p)  # noqa: E731
    base = Wasteful(metric, "Judge.")
    run(set(), metric=metric, infiller=infiller, base=base)
    shown = {int(turn.parts[0]) for canvas in infiller.canvases for turn in canvas.context[::2]}
    assert shown == set(seen) == KEPT


class Recording(Wasteful):
    """Remembers the examples it was given, and finds nothing."""

    def compile(self, student, *, trainset, valset):
        self.instructions.append((trainset, valset))
        return student


def test_a_base_gets_the_validation_examples_but_for_what_is_kept_out():
    given = []
    base = Recording(exact, given)
    settings = {"infiller": ScriptedInfiller("x"), "selection": HALF, "base": base}
    with dspy.context(lm=rule_lm(lambda system, user: "no"), adapter=CompactAdapter(), num_threads=1):
        DiffusionInfill(exact, **settings).compile(student(), trainset=reviews(20), valset=reviews())
    ((trainset, valset),) = given
    assert (numbers(trainset), numbers(valset)) == (KEPT | set(range(16, 20)), KEPT)


def test_words_of_an_example_that_is_kept_out_are_not_let_in():
    examples = [example.with_inputs("review") for example in reviews()]
    for example in examples:
        example.review += " the plot was thin"
    settings = {"infiller": ScriptedInfiller(f"{min(HELD)} the plot was thin"), "selection": HALF}
    with dspy.context(lm=rule_lm(lambda system, user: "no"), adapter=CompactAdapter(), num_threads=1):
        tuned = DiffusionInfill(exact, **settings).compile(student(), trainset=examples)
    assert "copies 5 words from an example" in tuned.trial_logs[0]["rejected"][0]["reason"]


@pytest.mark.parametrize("cap", [24, 25, 31, 32, 40])
def test_the_calls_that_confirm_are_kept_from_the_search(cap):
    calls = []
    metric = lambda e, p: calls.append(1) or exact(e, p)  # noqa: E731
    tuned = run(KEPT | HELD, metric=metric, budget=Budget(metric_calls=cap))
    results = tuned.detailed_results
    assert len(calls) == results["metric_calls"] <= cap
    assert results["confirmation"]["verdict"] == ("confirmed" if cap >= 32 else "unconfirmed")


def test_a_search_that_wants_more_does_not_get_the_calls_that_confirm():
    settings = {"selection": Selection(holdout=0.5, rule="full"), "denoising": Denoising(num_candidates=3)}
    infiller, able = ScriptedInfiller("Be warm", "Judge", "x"), (KEPT | HELD) - {min(KEPT)}
    tuned = run(able, infiller=infiller, budget=Budget(metric_calls=40), **settings)
    results = tuned.detailed_results
    # 24 for the search: the start, four of each candidate, four more of the best; 16 to confirm
    assert (results["metric_calls"], results["confirmation"]["verdict"]) == (40, "confirmed")


def test_whoever_ends_the_search_does_not_wait_for_a_confirmation():
    class Interrupted(ScriptedInfiller):
        def infill(self, canvases, *, num_candidates, seed):
            if self.canvases:
                raise KeyboardInterrupt
            return super().infill(canvases, num_candidates=num_candidates, seed=seed)

    tuned = run((KEPT | HELD) - {min(KEPT)}, infiller=Interrupted("Be warm"))
    assert tuned.detailed_results["metric_calls"] == 2 * 8
    assert tuned.detailed_results["confirmation"]["verdict"] == "unconfirmed"
    assert instructions_of(tuned) == {"self": "Be warm"}


def test_a_cap_that_cannot_confirm_is_refused():
    with pytest.raises(SettingsError, match=r"examples, 24, .*on 8 held-out ones twice; got 23"):
        run(set(), budget=Budget(metric_calls=23))


@pytest.mark.parametrize(("calls", "verdict"), [(10, "unconfirmed"), (20, "unconfirmed"), (99, "confirmed")])
def test_ctrl_c_in_the_search_or_the_confirmation_returns_the_best_so_far(calls, verdict):
    left = [calls]

    def metric(example, prediction):
        left[0] -= 1
        if left[0] < 0:
            left[0] = 99
            raise KeyboardInterrupt
        return exact(example, prediction)

    tuned = run(KEPT | HELD, metric=metric, num_threads=1)
    assert tuned.detailed_results["confirmation"]["verdict"] == verdict
    assert instructions_of(tuned) == {"self": "Rate the text." if calls == 10 else "Be warm"}


def test_a_confirmed_run_gives_the_same_from_its_journal(tmp_path):
    first, again = (run(KEPT | HELD, log_dir=tmp_path) for _ in range(2))
    assert again.detailed_results["confirmation"] == first.detailed_results["confirmation"]
    assert again.detailed_results["metric_calls"] == first.detailed_results["metric_calls"]


@pytest.mark.parametrize("share", [1.0, -0.1, "most"])
def test_a_share_out_of_range_is_refused(share):
    with pytest.raises(SettingsError, match="holdout must be 'auto', or at least 0 and below 1; got"):
        Selection(holdout=share)
