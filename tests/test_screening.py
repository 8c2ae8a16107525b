"""Screening: fillings with which the infiller does not expect the reference outputs cost no program run."""

import math

import dspy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspy_diffusion_infill import CompactAdapter, Denoising, DiffusionInfill, Selection, SlidingWindow
from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.prompts.canvas import Filling, Message
from dspy_diffusion_infill.prompts.program import instructions_of
from dspy_diffusion_infill.search.screening import MAX_EXAMPLES, Screen, expectations
from tests.doubles import ScriptedInfiller, exact, obey, reviews, rule_lm, show


class Judging(ScriptedInfiller):
    """Finds an answer likelier the more of these words the prompt before it holds."""

    words = ("warm", "five")

    def __init__(self, *script, **settings):
        super().__init__(*script, **settings)
        self.asked = []

    def nll_per_token(self, canvases, texts):
        self.asked += zip(canvases, texts, strict=True)
        return [3.0 - sum(word in show(canvas.messages[0]) for word in self.words) for canvas in canvases]


SCRIPT = ("Judge", "Be warm", "Grade", "Be warm and five")


def compile_with(infiller, share, text="Rate the text.", **masking):
    optimizer = DiffusionInfill(
        exact,
        infiller=infiller,
        masking=SlidingWindow(passes=1, **masking),
        denoising=Denoising(num_candidates=4),
        selection=Selection(rule="full", screen=share),
        budget="heavy",
    )
    student = dspy.Predict(dspy.Signature("review -> rating", text))
    lm = rule_lm(obey)
    with dspy.context(lm=lm, adapter=CompactAdapter(), num_threads=2):
        return optimizer.compile(student, trainset=reviews())


def test_the_best_share_is_scored_and_the_others_are_rejected_with_what_they_were_worth():
    whole, screened = (compile_with(Judging(*SCRIPT), share) for share in (1.0, 0.25))
    assert instructions_of(screened) == instructions_of(whole) == {"self": "Be warm and five"}
    assert (whole.detailed_results["metric_calls"], screened.detailed_results["metric_calls"]) == (80, 32)
    (trial,) = screened.trial_logs
    assert [tried["text"] for tried in trial["candidates"]] == ["Be warm and five"]
    assert {refused["text"]: refused["reason"] for refused in trial["rejected"]} == {
        "Judge": "screened out: reference outputs +0.000 likelier",
        "Grade": "screened out: reference outputs +0.000 likelier",
        "Be warm": "screened out: reference outputs +0.086 likelier",
    }


def test_without_screening_the_infiller_is_not_asked():
    infiller = Judging(*SCRIPT)
    compile_with(infiller, 1.0)
    assert infiller.asked == []


def test_what_is_asked_is_the_reference_output_after_the_whole_prompt():
    infiller = Judging(*SCRIPT)
    compile_with(infiller, 0.5)
    assert len(infiller.asked) == MAX_EXAMPLES * (1 + len(SCRIPT))
    canvas, (text,) = infiller.asked[0]
    system, user, answer = canvas.messages
    assert (show(system), show(answer), answer.role) == ("Rate the text.", "_", "assistant")
    assert text == f"y{show(user)}"
    assert canvas.context == ()


@pytest.mark.parametrize("order", ["successive", "independent"])
def test_a_poor_window_after_a_good_one_gets_no_run(order):
    infiller = Judging("warm five")

    def only_first(canvases, *, num_candidates, seed):
        first = [show(canvas.messages[0]).startswith("_") for canvas in canvases]
        return [[Filling(("warm five" if is_first else "x",), 0.0, 1)] * num_candidates for is_first in first]

    infiller.infill = only_first
    tuned = compile_with(infiller, 0.5, "a b c d", window=2, stride=2, mask=2, order=order)
    first, second = tuned.trial_logs
    assert (first["num_candidates"], second["num_candidates"]) == (1, 0)
    assert instructions_of(tuned) == {"self": "warm five c d"}


@settings(max_examples=30)
@given(st.lists(st.lists(st.floats(-5, 5), max_size=6), max_size=6), st.floats(0.01, 1))
def test_what_stays_is_never_worth_less_than_what_goes(batches, share):
    screen, seen = Screen(share), 0
    for worths in batches:
        stay = screen.sift(worths)
        seen += len(worths)
        kept = [worth for worth, stays in zip(worths, stay, strict=True) if stays]
        gone = [worth for worth, stays in zip(worths, stay, strict=True) if not stays]
        assert not kept or not gone or min(kept) > max(gone)
    assert len(screen._seen) == seen


def test_the_first_batch_keeps_its_share_rounded_up():
    assert Screen(0.25).sift([0.1, 0.3, 0.2, 0.0]) == [False, True, False, False]
    assert Screen(0.26).sift([0.1, 0.3, 0.2, 0.0]) == [False, True, True, False]


def test_examples_that_do_not_fit_are_left_out_and_without_any_nothing_is_said():
    prompt = (Message.text("system", "a b c"),)
    short, long = (
        (Message.text("user", text), Message.text("assistant", "y z")) for text in ("u", "u " * 20)
    )
    infiller = Judging(context_length=6)
    assert expectations([prompt], [short, long], infiller) == [pytest.approx(math.exp(-3))]
    assert len(infiller.asked) == 1
    assert expectations([prompt], [long], infiller) is None
    assert expectations([prompt], [], infiller) is None


def test_one_answer_that_a_prompt_is_very_wrong_about_does_not_outweigh_the_others():
    prompts = [(Message.text("system", text),) for text in ("sure", "unsure")]
    examples = [(Message.text("user", text), Message.text("assistant", "y")) for text in ("a", "b", "c", "d")]
    infiller = Judging()
    # the first is right on three of four examples, and far off on one; the second is never right
    infiller.nll_per_token = lambda canvases, texts: [0.1, 1.2, 0.1, 1.2, 0.1, 1.2, 20.0, 1.2]
    first, second = expectations(prompts, examples, infiller)
    assert (first, second) == (pytest.approx(3 / 4 * math.exp(-0.1)), pytest.approx(math.exp(-1.2)))
    assert first > second


def test_an_infiller_that_cannot_score_is_refused_before_any_call():
    with pytest.raises(SettingsError, match=r"screen must be 1 with scripted:1, .*got 0.5"):
        compile_with(ScriptedInfiller("x"), 0.5)
