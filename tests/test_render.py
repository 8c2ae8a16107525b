"""Rendering: the canvas is the program's own prompt, as the active adapter lays it out."""

import dspy
import pytest

from dspy_diffusion_infill.errors import CanvasError
from dspy_diffusion_infill.prompts.canvas import Masked, Message
from dspy_diffusion_infill.prompts.compact import CompactAdapter
from dspy_diffusion_infill.prompts.program import signature_of
from dspy_diffusion_infill.prompts.render import render_prompt, render_turns, render_window
from dspy_diffusion_infill.prompts.windows import Window
from tests.doubles import show

TEXT = "Rate it.\nWith care:\n  1 to 5."
ADAPTERS = [dspy.ChatAdapter(), dspy.JSONAdapter(), dspy.XMLAdapter(), CompactAdapter()]


@pytest.fixture
def predictor():
    predictor = dspy.Predict(dspy.Signature("review -> rating", TEXT))
    predictor.demos = [dspy.Example(review="Fine.", rating="3")]
    return predictor


def real_messages(adapter, predictor, text):
    """What a call would send, as (role, text)."""
    signature = signature_of(predictor).with_instructions(text)
    messages = adapter.format(signature, [dict(demo) for demo in predictor.demos], {"review": "Good."})
    return [(message["role"], message["content"]) for message in messages]


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: type(adapter).__name__)
def test_the_prompt_is_that_of_a_call_with_the_window_masked(adapter, predictor):
    with dspy.context(adapter=adapter):
        messages = render_window(predictor, TEXT, Window(5, 13, (3,)))
    masks = sum(isinstance(part, Masked) for message in messages for part in message.parts)
    shown = [(message.role, show(message)) for message in messages]
    assert masks == 1
    assert shown == real_messages(adapter, predictor, "Rate ___ care:\n  1 to 5.")[:-1]


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: type(adapter).__name__)
def test_an_example_reads_as_a_demo(adapter, predictor):
    example = dspy.Example(review="Bad.", rating="1", source="ignored").with_inputs("review")
    with dspy.context(adapter=adapter):
        turns = render_turns(predictor, example)
    predictor.demos = [example]
    assert [(turn.role, show(turn)) for turn in turns] == real_messages(adapter, predictor, TEXT)[1:3]


def test_the_whole_text_can_be_one_window(predictor):
    predictor.demos = []
    with dspy.context(adapter=CompactAdapter()):
        messages = render_window(predictor, TEXT, Window(0, len(TEXT), (2,)))
    assert messages == (Message("system", (Masked(2),)),)


def test_the_active_adapter_decides_and_chat_is_the_default(predictor):
    (system, *_) = render_window(predictor, TEXT, Window(0, 4, (1,)))
    assert "[[ ## rating ## ]]" in show(system)


class Forgetful(CompactAdapter):
    def format_system_message(self, signature):
        return "Do as you like."


class Insistent(CompactAdapter):
    def format_system_message(self, signature):
        return signature.instructions * 2


@pytest.mark.parametrize(("adapter", "times"), [(Forgetful(), 0), (Insistent(), 2)])
def test_an_adapter_that_hides_or_repeats_the_instructions_is_refused(adapter, times, predictor):
    message = f"{type(adapter).__name__} must show .* exactly once; it shows them {times} times"
    with dspy.context(adapter=adapter), pytest.raises(CanvasError, match=message):
        render_window(predictor, TEXT, Window(0, 4, (1,)))


def test_an_example_without_any_output_shows_nothing(predictor):
    assert render_turns(predictor, {"review": "Bad."}) == ()


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: type(adapter).__name__)
def test_images_of_an_example_are_left_out_and_its_texts_are_not(adapter):
    image = dspy.Image("data:image/png;base64,AAAA")
    predictor = dspy.Predict(
        dspy.Signature("image: dspy.Image, more: list[dspy.Image], review -> drawn: dspy.Image")
    )
    predictor.demos = [{"image": image, "more": [image, image], "review": "<<Bad.>>", "drawn": image}]
    with dspy.context(adapter=adapter):
        turns = [show(turn) for turn in render_turns(predictor, predictor.demos[0])]
        shown = [show(message) for message in render_prompt(predictor)]
    assert shown[1:] == turns
    assert "<<Bad.>>" in turns[0]
    assert not any(mark in text for text in turns for mark in ("AAAA", "image_url", "CUSTOM-TYPE"))


class Captioned(dspy.Type):
    caption: str

    def format(self):
        return [{"type": "image_url", "image_url": {"url": "AAAA"}}, {"type": "text", "text": self.caption}]


def test_the_text_of_what_is_more_than_text_is_kept():
    predictor = dspy.Predict(dspy.Signature("picture -> rating").with_updated_fields("picture", Captioned))
    with dspy.context(adapter=CompactAdapter()):
        asked, _ = render_turns(predictor, {"picture": Captioned(caption="a dog"), "rating": "1"})
    assert show(asked).endswith("a dog")
    assert "AAAA" not in show(asked)


def test_rendering_changes_nothing(predictor):
    before = dict(vars(predictor))
    render_window(predictor, "Other.", Window(0, 5, (1,)))
    assert vars(predictor) == before
    assert signature_of(predictor).instructions == TEXT
