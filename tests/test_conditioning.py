"""Conditioning: which examples a canvas shows, in which order, and what gives way when they do not fit."""

import logging

import dspy
import pytest

from dspy_diffusion_infill.errors import CanvasError
from dspy_diffusion_infill.prompts.canvas import Masked, Message
from dspy_diffusion_infill.prompts.compact import CompactAdapter
from dspy_diffusion_infill.prompts.conditioning import Conditioning, needs_traces
from tests.doubles import ScriptedInfiller, reviews, show

MASKED = (Message("system", ("Rate", Masked(2))),)


@pytest.fixture(autouse=True)
def compact():
    with dspy.context(adapter=CompactAdapter()):
        yield


class Pipeline(dspy.Module):
    def __init__(self):
        super().__init__()
        self.summarize = dspy.Predict("review -> summary")
        self.rate = dspy.Predict("summary -> rating")


def shown(conditioning, predictor, visit, infiller=None):
    canvas = conditioning.canvas(predictor, MASKED, visit, infiller or ScriptedInfiller("x"))
    assert canvas.messages == MASKED
    return [show(turn) for turn in canvas.context]


def test_examples_take_turns_until_all_were_shown():
    conditioning = Conditioning(dspy.Predict("review -> rating"), reviews(4), {}, shots=2, seed=0)
    first, second, third = (shown(conditioning, "self", visit) for visit in range(3))
    assert sorted(first[::2] + second[::2]) == ["0", "1", "2", "3"]
    assert first[1::2] == [f"y{review}" for review in first[::2]]
    assert third == first


def test_canvases_with_the_same_examples_hold_equal_contexts():
    conditioning = Conditioning(dspy.Predict("review -> rating"), reviews(3), {}, shots=8, seed=0)
    assert shown(conditioning, "self", 0) == shown(conditioning, "self", 1)


def test_the_seed_decides_the_order():
    orders = [
        shown(Conditioning(dspy.Predict("review -> rating"), reviews(8), {}, shots=8, seed=seed), "self", 0)
        for seed in (0, 0, 1)
    ]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2])


def test_no_shots_show_no_examples():
    conditioning = Conditioning(dspy.Predict("review -> rating"), reviews(3), {}, shots=0, seed=0)
    assert shown(conditioning, "self", 5) == []


def test_whole_examples_are_dropped_to_fit_and_it_is_said_once(caplog):
    conditioning = Conditioning(dspy.Predict("review -> rating"), reviews(4), {}, shots=4, seed=0)
    infiller = ScriptedInfiller("x", context_length=3 + 2 * 2 + 1)  # the prompt, two examples, and one token
    with caplog.at_level(logging.WARNING):
        assert len(shown(conditioning, "self", 0, infiller)) == 4
        assert len(shown(conditioning, "self", 1, infiller)) == 4
    assert [record.getMessage() for record in caplog.records] == [
        "Only 2 of 4 examples fit beside the prompt of predictor 'self' in the 8 tokens of scripted:1."
    ]


def test_a_prompt_that_is_too_long_without_examples_is_refused():
    conditioning = Conditioning(dspy.Predict("review -> rating"), reviews(1), {}, shots=1, seed=0)
    with pytest.raises(CanvasError, match=r"at most 2 tokens, .* it has 3 without any example"):
        shown(conditioning, "self", 0, ScriptedInfiller("x", context_length=2))


def test_labels_are_enough_for_one_predictor_but_not_inside_a_pipeline():
    assert not needs_traces(dspy.Predict("review -> rating"), reviews())
    assert needs_traces(dspy.ChainOfThought("review -> rating"), reviews())
    assert needs_traces(Pipeline(), reviews())


def test_calls_from_good_runs_stand_in_for_missing_labels():
    calls = {"summarize": [{"review": "0", "summary": "s0"}], "rate": [{"summary": "s0", "rating": "y0"}]}
    conditioning = Conditioning(Pipeline(), reviews(2), calls, shots=8, seed=0)
    assert shown(conditioning, "summarize", 0) == ["0", "s0"]
    assert shown(conditioning, "rate", 0) == ["s0", "y0"]


def test_without_good_runs_the_fields_that_exist_are_shown():
    conditioning = Conditioning(dspy.ChainOfThought("review -> rating"), reviews(1), {}, shots=8, seed=0)
    user, assistant = shown(conditioning, "predict", 0)
    assert user.endswith("0")
    assert assistant.endswith("rating: y0")
    assert shown(Conditioning(Pipeline(), reviews(1), {}, shots=8, seed=0), "rate", 0) == []
