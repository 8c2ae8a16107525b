"""Bodies before anything is done with them: what is wrong is found soon, and said in one sentence."""

from __future__ import annotations

import json
import math

import pytest
from pydantic import ValidationError

from dspy_diffusion_infill.engine.likelihood import Estimate
from dspy_diffusion_infill.serving.openai import ChatRequest, CompletionRequest
from dspy_diffusion_infill.serving.schemas import InfillRequest
from dspy_diffusion_infill.serving.server import complaint
from dspy_diffusion_infill.serving.text_schemas import ScoreBody, ScoreRequest, TokenizeRequest


def infill(content, **more):
    return {"canvases": [{"messages": [{"role": "user", "content": content}]}], **more}


def chat(content, **more):
    return {"model": "m", "messages": [{"role": "user", "content": content}], **more}


def refused(kind, body):
    """The complaint about a body, and how many errors were found on the way."""
    with pytest.raises(ValidationError) as caught:
        kind.model_validate(body)
    errors = [{**error, "loc": ("body", *error["loc"])} for error in caught.value.errors()]
    return complaint(errors), len(errors)


PARTS = [{"type": "text", "text": "x"}]
CANVAS = {"messages": [{"role": "user", "content": [{"mask": 1}]}], "texts": ["x"]}


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (ChatRequest, chat([0] * 1000)),
        (ChatRequest, {"model": "m", "messages": [0] * 1000}),
        (ChatRequest, chat("x", stop=[0] * 1000)),
        (CompletionRequest, {"model": "m", "prompt": [0] * 1000}),
        (InfillRequest, infill([0] * 1000)),
        (InfillRequest, infill([{}] * 1000)),
        (InfillRequest, infill([{"mask": [""] * 1000}])),
        (InfillRequest, {"canvases": [{"messages": [0] * 1000}]}),
        (InfillRequest, {"canvases": [0] * 1000}),
        (InfillRequest, infill([{"mask": 1}], context=[0] * 1000)),
        (ScoreRequest, {"inputs": [0] * 1000}),
        (ScoreRequest, {"canvases": [0] * 1000}),
        (ScoreRequest, {"canvases": [{**CANVAS, "texts": [0] * 1000}]}),
        (TokenizeRequest, {str(n): 0 for n in range(1000)}),
        (InfillRequest, infill([{str(n): 0 for n in range(1000)}])),
    ],
)
def test_of_many_mistakes_few_are_looked_at(kind, body):
    assert refused(kind, body)[1] < 9


@pytest.mark.parametrize(
    ("kind", "body", "message"),
    [
        (ChatRequest, chat(PARTS * 1025), "messages.0.content: List should have at most 1024 items after"),
        (InfillRequest, infill([{"mask": 1}], a=1, b=2, n=0), "n: Input should be greater than"),
        (TokenizeRequest, {str(n): 0 for n in range(9)} | {"x": 1}, "body: Extra inputs are not permitted"),
        (TokenizeRequest, {"text": "x" * 2**17 + "x"}, "text: String should have at most 131072 characters"),
        (ChatRequest, chat("x" * 2**19 + "x"), "content: String should have at most 524288 characters"),
        (ChatRequest, chat("x", stop=["x"] * 17), "stop: List should have at most 16 items after"),
        (
            ChatRequest,
            chat("x", max_tokens=3, max_completion_tokens=4),
            "max_tokens must be max_completion_tokens, 4, where both are given; got 3.",
        ),
        (CompletionRequest, {"model": "m", "prompt": []}, "prompt: List should have at least 1 item after"),
    ],
)
def test_the_complaint_is_about_what_was_meant(kind, body, message):
    assert message in refused(kind, body)[0]


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (ChatRequest, json.dumps(chat("\ud800"))),
        (ChatRequest, json.dumps(chat([{"type": "text", "text": "\ud800"}]))),
        (ChatRequest, json.dumps(chat("x", stop="\ud800"))),
        (ChatRequest, json.dumps(chat("x", stop=["\ud800"]))),
        (CompletionRequest, json.dumps({"model": "m", "prompt": "\ud800"})),
        (CompletionRequest, json.dumps({"model": "m", "prompt": ["\ud800"]})),
        (CompletionRequest, json.dumps({"model": "m", "prompt": "x", "suffix": "\ud800"})),
        (InfillRequest, json.dumps(infill("\ud800"))),
        (InfillRequest, json.dumps(infill(["\ud800", {"mask": 1}]))),
        (InfillRequest, json.dumps(infill([{"mask": 1}], context=[{"role": "user", "content": "\ud800"}]))),
        (ScoreRequest, json.dumps({"inputs": [{"text": "\ud800"}]})),
        (ScoreRequest, json.dumps({"inputs": [{"messages": [], "response": "\ud800"}]})),
        (ScoreRequest, json.dumps({"canvases": [{**CANVAS, "texts": ["\ud800"]}]})),
        (TokenizeRequest, json.dumps({"text": "\ud800"})),
    ],
)
def test_half_of_a_surrogate_pair_is_no_text(kind, body):
    assert "unable to parse raw data as a unicode string" in refused(kind, json.loads(body))[0]


def test_a_perplexity_that_no_float_holds_is_null():
    found = Estimate(nelbo=1500.0, standard_error=1.0, num_tokens=2)
    assert found.perplexity == math.inf
    assert ScoreBody.of(found).perplexity is None
    assert ScoreBody.of(Estimate(nelbo=0.0, standard_error=1.0, num_tokens=2)).perplexity == 1.0
