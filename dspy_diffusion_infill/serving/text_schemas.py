"""The bodies of score and tokenize."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import ConfigDict, Field, WithJsonSchema, model_validator

from dspy_diffusion_infill.engine.likelihood import Estimate, Estimator
from dspy_diffusion_infill.serving.limits import (
    MAX_CANVASES,
    MAX_PARTS,
    MAX_SCORE_SAMPLES,
    MAX_TEXT,
    MAX_TOKENIZED,
)
from dspy_diffusion_infill.serving.schemas import (
    ANY_TEXT,
    Body,
    CanvasBody,
    Conversation,
    ModelName,
    Seed,
    Text,
    Usage,
    User,
    given,
)

SomeText = Annotated[
    str, Field(min_length=1, max_length=MAX_TEXT), WithJsonSchema({"type": "string", "minLength": 1})
]


class ScoreInput(Body):
    """A text, or the response to a conversation."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                given("text", without=["messages", "response"]),
                given("messages", "response", without=["text"]),
            ]
        }
    )

    text: SomeText | None = None
    messages: Conversation | None = None
    response: SomeText | None = None

    @model_validator(mode="after")
    def one_of_two(self) -> ScoreInput:
        if (self.messages is None) != (self.response is None) or (self.text is None) == (
            self.messages is None
        ):
            raise ValueError("give either text, or messages and response")
        return self


class FilledCanvas(CanvasBody):
    """A canvas, and a text for each of its masked parts."""

    texts: Annotated[list[Text], Field(min_length=1, max_length=MAX_PARTS, fail_fast=True)] = Field(
        description="In reading order; their own tokens count, not the masks."
    )


class ScoreRequest(Body):
    """Texts whose likelihood is wanted: alone, as responses, or in the masked parts of canvases."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                given("inputs", without=["canvases", "context"]),
                given("canvases", without=["inputs"]),
            ],
            "examples": [{"inputs": [{"text": "Rate the text from 1 to 5."}], "num_samples": 8}],
        }
    )

    model: ModelName = None
    inputs: (
        Annotated[list[ScoreInput], Field(min_length=1, max_length=MAX_CANVASES, fail_fast=True)] | None
    ) = Field(None, description="Texts, or responses to conversations.")
    canvases: (
        Annotated[list[FilledCanvas], Field(min_length=1, max_length=MAX_CANVASES, fail_fast=True)] | None
    ) = Field(None, description="In place of inputs: with the texts of their masked parts.")
    context: Conversation = Field([], description="Turns that follow every canvas.")
    num_samples: int = Field(32, ge=2, le=MAX_SCORE_SAMPLES, description="Draws of the estimate.")
    estimator: Estimator = Field("exact_count", description="How draws are made; exact_count varies least.")
    seed: Seed = Field(0, description="Of the draws.")
    user: User = None

    @model_validator(mode="after")
    def one_of_two(self) -> ScoreRequest:
        if (self.inputs is None) == (self.canvases is None) or (self.inputs is not None and self.context):
            raise ValueError("give either inputs, or canvases with or without context")
        return self


class ScoreBody(Body):
    """An upper bound of the negative log-likelihood, estimated."""

    nelbo: float = Field(description="Of all scored tokens together, in nats.")
    standard_error: float
    num_tokens: int
    perplexity: float | None = Field(description="Per scored token; null beyond the largest float.")

    @classmethod
    def of(cls, found: Estimate) -> ScoreBody:
        return cls(
            nelbo=found.nelbo,
            standard_error=found.standard_error,
            num_tokens=found.num_tokens,
            perplexity=found.perplexity if math.isfinite(found.perplexity) else None,
        )


class ScoreAnswer(Body):
    """For each input, or for each canvas, in the order asked."""

    model: str
    scores: list[ScoreBody] | None = None
    nll_per_token: list[float] | None = Field(
        default=None, description="Of each canvas's texts, all their tokens masked at once; in nats."
    )
    usage: Usage


class TokenizeRequest(Body):
    """A text to be divided, or a canvas to be counted."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [given("text", without=["canvas", "context"]), given("canvas", without=["text"])],
            "examples": [{"text": "Rate the text."}],
        }
    )

    model: ModelName = None
    text: Annotated[str, Field(max_length=MAX_TOKENIZED), ANY_TEXT] | None = Field(
        None, description="To be divided into tokens."
    )
    canvas: CanvasBody | None = Field(None, description="In place of text: to be counted.")
    context: Conversation = Field([], description="Turns that follow the canvas.")

    @model_validator(mode="after")
    def one_of_two(self) -> TokenizeRequest:
        if (self.text is None) == (self.canvas is None) or (self.text is not None and self.context):
            raise ValueError("give either text, or canvas with or without context")
        return self


class TokenizeAnswer(Body):
    """Of a text its tokens; of a canvas how many, chat template and masks included."""

    num_tokens: int
    ids: list[int] | None = None
    offsets: list[Annotated[list[int], Field(min_length=2, max_length=2)]] | None = Field(
        default=None, description="First character of each token, and the one behind its last."
    )
