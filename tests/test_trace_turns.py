"""Traces on a canvas: what happened and what was said of it, failing and passing ones in turn, cut to fit."""

import dspy
import pytest

from dspy_diffusion_infill.errors import CanvasError
from dspy_diffusion_infill.prompts.canvas import Masked, Message
from dspy_diffusion_infill.prompts.compact import CompactAdapter
from dspy_diffusion_infill.prompts.conditioning import Conditioning
from dspy_diffusion_infill.prompts.trace_turns import arranged, judgement, trace_turns
from dspy_diffusion_infill.trace_formats import read_dialogues
from dspy_diffusion_infill.traces import Trace, hide_secrets
from tests.doubles import ScriptedInfiller, reviews, show

MASKED = (Message("system", ("Rate", Masked(2))),)


@pytest.fixture(autouse=True)
def compact():
    with dspy.context(adapter=CompactAdapter()):
        yield


def rater():
    return dspy.Predict("review -> rating")


def trace(number, score=None, feedback=None):
    return Trace({"review": str(number)}, {"rating": "no"}, score, feedback)


def laid_out(trace):
    return [(turn.role, show(turn)) for turn in trace_turns(rater(), trace)]


def test_a_trace_is_a_query_a_response_and_a_judgement():
    assert laid_out(trace(3, 0, "It says y3.")) == [
        ("user", "3"),
        ("assistant", "no"),
        (
            "user",
            "The answer was wrong: It says y3.\nChange the instructions so that it comes out right.",
        ),
    ]
    assert laid_out(trace(3)) == [("user", "3"), ("assistant", "no")]


def test_fields_are_laid_out_by_the_active_adapter():
    with dspy.context(adapter=dspy.ChatAdapter()):
        (user, assistant) = laid_out(trace(3))
    assert "[[ ## review ## ]]\n3" in user[1]
    assert "[[ ## rating ## ]]\nno" in assistant[1]


def test_a_trace_with_other_fields_is_shown_as_plain_text():
    one = Trace({"prompt": "hi"}, {"response": "yo"}, feedback="Rude.")
    assert laid_out(one) == [("user", "hi"), ("assistant", "yo"), ("user", "Rude.")]
    two = Trace({"city": "Oslo", "day": 2}, {"weather": "snow"})
    assert laid_out(two) == [("user", "city: Oslo\nday: 2"), ("assistant", "snow")]


def test_of_a_call_without_an_answer_what_was_said_is_shown():
    assert laid_out(Trace({"review": "3"}, {}, feedback="Nothing came.")) == [("user", "Nothing came.")]


@pytest.mark.parametrize(
    ("score", "feedback", "words"),
    [
        (10, None, "The answer was right.\nKeep what the instructions say about this."),
        (12, "Well.", "The answer was right: Well.\nKeep what the instructions say about this."),
        (9.5, None, "The answer was only partly right.\nChange the instructions so that it comes out right."),
        (0, None, "The answer was wrong.\nChange the instructions so that it comes out right."),
        (-1, " ", "The answer was wrong.\nChange the instructions so that it comes out right."),
        (None, " Well. ", "Well."),
        (None, None, ""),
    ],
)
def test_a_score_is_put_in_words_on_the_metrics_own_scale(score, feedback, words):
    assert judgement(trace(1, score, feedback), max_score=10) == words


def test_failing_and_other_traces_take_turns_and_the_seed_decides_which():
    traces = [trace(n, score) for n, score in enumerate([0, 0.5, 0, 1, 1, None])]
    traces.append(Trace({"review": "6"}, {}, feedback="Nothing came."))
    orders = [arranged(traces, max_score=1, seed=seed) for seed in ("a", "a", "b")]
    assert orders[0] == orders[1] != orders[2]
    for order in orders:
        fails = [not one.outputs or (one.score is not None and one.score < 1) for one in order]
        assert fails == [True, False, True, False, True, False, True]
        assert sorted(one.inputs["review"] for one in order) == list("0123456")


def shown(conditioning, traces, visit=0, infiller=None):
    canvas = conditioning.canvas("self", MASKED, visit, infiller or ScriptedInfiller("x"), traces)
    return [show(turn) for turn in canvas.context]


def conditioned(condition_on, shots=2, **settings):
    return Conditioning(rater(), reviews(4), {}, shots=shots, seed=0, condition_on=condition_on, **settings)


def test_traces_take_turns_and_no_example_is_shown_beside_them():
    traces = [trace(n, feedback="f") for n in range(4)]
    first, second, third = (shown(conditioned("traces"), traces, visit) for visit in range(3))
    assert sorted(first[::3] + second[::3]) == ["0", "1", "2", "3"]
    assert first[1:3] == ["no", "f"]
    assert third == first
    assert shown(conditioned("examples"), traces)[1].startswith("y")
    assert shown(conditioned("traces"), []) == []


def test_both_are_shown_in_turn_a_trace_first():
    context = shown(conditioned("both", shots=4), [trace(7), trace(8), trace(9)])
    answers = context[1::2]
    assert [answers[0], answers[2]] == ["no", "no"]
    assert [answers[1][0], answers[3][0]] == ["y", "y"]
    assert len(context) == 2 * 4


def test_with_too_little_room_the_first_is_a_failing_one(caplog):
    traces = [trace(1, 1), trace(2, 1), trace(3, 0)]
    infiller = ScriptedInfiller("x", context_length=3 + 2 + 13)  # the prompt, a trace, its judgement
    context = shown(conditioned("traces", shots=3), traces, infiller=infiller)
    assert context[0] == "3"
    assert len(context) == 3
    assert "Only 1 of 3 traces fit beside the prompt" in caplog.text


def test_a_trace_too_long_for_the_model_keeps_both_ends_of_its_turns():
    long = Trace({"review": "begin " + "x " * 5000 + "end"}, {"rating": "no"})
    (review, rating) = shown(
        conditioned("traces"), [long], infiller=ScriptedInfiller("x", context_length=300)
    )
    assert rating == "no"
    assert review.startswith("begin x x")
    assert review.endswith("x x end")
    assert review.count(" [...] ") == 1
    assert 256 < len(review) <= 512 + 7
    assert shown(conditioned("traces"), [long], infiller=ScriptedInfiller("x", context_length=10)) == []


def test_an_example_is_never_cut():
    infiller = ScriptedInfiller("x", context_length=300)
    example = [dspy.Example(review="x " * 5000, rating="1").with_inputs("review")]
    conditioning = Conditioning(rater(), example, {}, shots=1, seed=0)
    assert shown(conditioning, [], infiller=infiller) == []


def test_a_prompt_that_is_too_long_alone_is_refused():
    with pytest.raises(CanvasError, match="at most 2 tokens"):
        shown(conditioned("traces"), [trace(1)], infiller=ScriptedInfiller("x", context_length=2))


def test_the_users_hook_sees_every_text_before_it_is_shown_or_cut():
    secret = Trace({"review": "x" * 70 + " password: hunter22"}, {"rating": "no"}, feedback="token=abcd1234")
    context = shown(conditioned("both", redact=hide_secrets), [secret])
    assert context[0].endswith(" password[hidden]")
    assert context[2] == "token[hidden]"
    assert shown(conditioned("examples", redact=lambda text: text.replace("y", "?")), [])[1][0] == "?"


def test_every_dialogue_of_tau_bench_conditions_an_infill(shared_data):
    program = dspy.Predict("conversation -> reply")
    infiller = ScriptedInfiller("x", context_length=512)
    traces = read_dialogues(shared_data / "traces_tau.jsonl").traces
    conditioning = Conditioning(program, [], {}, shots=1, seed=0, condition_on="traces")
    canvases = [conditioning.canvas("self", MASKED, 0, infiller, [one]) for one in traces]
    assert len(canvases) == 288
    assert all(len(canvas.context) >= 2 for canvas in canvases)
    assert {turn.role for canvas in canvases for turn in canvas.context} == {"user", "assistant"}
    assert infiller.infill(canvases, num_candidates=1, seed=0)[287][0].texts == ("x",)
