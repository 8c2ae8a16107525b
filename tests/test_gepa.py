"""Infilling as GEPA's proposer: one window at a time, in sight of the runs GEPA reflects on."""

import dspy
import pytest
from dspy.teleprompt import GEPA

from dspy_diffusion_infill import (
    CompactAdapter,
    Denoising,
    Guard,
    SlidingWindow,
    Template,
    infill_proposer,
)
from dspy_diffusion_infill.errors import CanvasError, SettingsError
from dspy_diffusion_infill.prompts.program import instructions_of
from tests.doubles import ScriptedInfiller, exact, obey, reviews, rule_lm, show, system_text

ONE = Denoising(num_candidates=1)


@pytest.fixture(autouse=True)
def lm():
    with dspy.context(lm=rule_lm(obey), adapter=CompactAdapter(), num_threads=2):
        yield


def student(text="Rate the text."):
    return dspy.Predict(dspy.Signature("review -> rating", text))


def record(outputs, review="3", feedback="It should say y3."):
    return {"Inputs": {"review": review}, "Generated Outputs": outputs, "Feedback": feedback}


def propose(proposer, text, *records):
    texts = proposer(
        candidate={"self": text}, reflective_dataset={"self": records}, components_to_update=["self"]
    )
    return texts["self"]


@pytest.mark.filterwarnings("ignore")
def test_gepa_improves_an_instruction_without_a_reflection_lm():
    program = student()
    proposer = infill_proposer(program, ScriptedInfiller("Be warm", "Judge", "Be warm and five"))
    gepa = GEPA(metric=exact, max_metric_calls=150, instruction_proposer=proposer, num_threads=1)
    tuned = gepa.compile(program, trainset=reviews(), valset=reviews())
    assert instructions_of(tuned) == {"self": "Be warm and five"}


def test_a_canvas_shows_the_runs_with_their_feedback():
    infiller = ScriptedInfiller("Be warm")
    proposer = infill_proposer(student(), infiller, denoising=ONE)
    assert (
        propose(proposer, "Now.", record({"rating": "no"}), record("not parsed", feedback="Answer."))
        == "Be warm"
    )
    (canvas,) = infiller.canvases
    assert system_text(canvas) == "________"
    turns = [(turn.role, show(turn)) for turn in canvas.context]
    assert turns == [("user", "3"), ("assistant", "no"), ("user", "It should say y3."), ("user", "Answer.")]


def test_one_window_changes_and_what_is_locked_stays():
    text = "a b {source} c d"
    settings = {"masking": SlidingWindow(window=2, stride=2, mask=2), "denoising": ONE, "seed": 1}

    def texts():
        proposer = infill_proposer(student(text), ScriptedInfiller("warm"), **settings)
        return [propose(proposer, text, record({"rating": "no"})) for _ in range(8)]

    assert set(texts()) == {"warm {source} c d", "a b {source} warm"}
    assert texts() == texts()


@pytest.mark.parametrize("guard", ["auto", None])
def test_what_would_unlock_a_text_leaves_the_instruction_as_it_was(guard):
    text = 'Rate now: "yes" or "no"'
    settings = {"masking": SlidingWindow(window=2, stride=2), "denoising": ONE, "guard": guard}
    proposer = infill_proposer(student(text), ScriptedInfiller('Use 12" now:'), **settings)
    assert {propose(proposer, text) for _ in range(8)} == {text}


def test_what_the_guard_refuses_leaves_the_instruction_as_it_was():
    leak = record({"rating": "no"}, review="the plot was thin")
    proposer = infill_proposer(
        student(), ScriptedInfiller("the plot was thin"), denoising=ONE, guard=Guard(copied_words=4)
    )
    assert propose(proposer, "Rate.", leak) == "Rate."
    free = infill_proposer(student(), ScriptedInfiller("the plot was thin"), denoising=ONE, guard=None)
    assert propose(free, "Rate.", leak) == "the plot was thin"


def test_an_instruction_that_is_locked_as_a_whole_stays():
    proposer = infill_proposer(student(), ScriptedInfiller("x"), lock=["Rate the text."])
    assert propose(proposer, "Rate the text.") == "Rate the text."


def test_templates_and_short_contexts_work_here_too():
    infiller = ScriptedInfiller("warm", context_length=7)
    proposer = infill_proposer(student(), infiller, masking=Template("Be {{mask:2}}!"), denoising=ONE)
    assert propose(proposer, "Rate.", record({"rating": "no"}), record({"rating": "no"})) == "Be warm!"
    assert infiller.canvases[0].context == ()
    short = infill_proposer(student(), ScriptedInfiller("x", context_length=7), denoising=ONE)
    with pytest.raises(CanvasError, match="predictor 'self' must have at most 7 tokens"):
        propose(short, "Rate.")


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"lock": "all"}, "lock must be"), ({"masking": Template({"rate": "{{mask:1}}"})}, "text must name")],
)
def test_settings_are_checked_when_it_is_made(settings, message):
    with pytest.raises(SettingsError, match=message):
        infill_proposer(student(), ScriptedInfiller("x"), **settings)
