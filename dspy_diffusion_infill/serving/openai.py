"""The bodies of OpenAI's API that this server understands, and what it makes of them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, WithJsonSchema, model_validator

from dspy_diffusion_infill.prompts.canvas import Message, Remasking, Role
from dspy_diffusion_infill.serving.limits import MAX_CANDIDATES, MAX_CANVASES, MAX_PARTS, MAX_STEPS
from dspy_diffusion_infill.serving.schemas import Body, Seed, Text, Tokens, Usage, User

ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
Stop = Annotated[str, Field(min_length=1, max_length=256)]


def _off(value: bool) -> bool:
    if value:
        raise ValueError("only false is understood")
    return value


Off = Annotated[bool, AfterValidator(_off), WithJsonSchema({"type": "boolean", "const": False})]
Zero = Annotated[float, Field(ge=0, le=0)]
One = Annotated[int, Field(ge=1, le=1)]
"""Of fields that would change nothing. No Literal, which takes 0 for False and True for 1."""
Object = Literal["chat.completion", "text_completion"]


class TextPart(Body):
    """A piece of a turn."""

    type: Literal["text"]
    text: Text


class Turn(Body):
    """One message; a model that reads text only takes no images, calls or tools."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[TextPart], Field(max_length=MAX_PARTS, fail_fast=True)]
    name: Text | None = None

    def read(self) -> Message:
        parts = [self.content] if isinstance(self.content, str) else [part.text for part in self.content]
        return Message(ROLES[self.role], tuple(parts))


class StreamOptions(Body):
    """What a stream tells besides."""

    include_usage: bool = False


class TextFormat(Body):
    """The one format there is."""

    type: Literal["text"]


class GenerationRequest(Body):
    """What chat and text completions share. Fields that would change nothing may be given, as they are."""

    model: Text = Field(description="The served model's name.")
    max_tokens: Tokens | None = Field(None, description="Mask tokens an answer starts from; null: 128.")
    temperature: float | None = Field(None, ge=0, le=10, description="null: 0, the likeliest tokens.")
    top_p: float | None = Field(None, gt=0, le=1, description="Only the likeliest tokens that sum to this.")
    top_k: int | None = Field(None, ge=-1, le=2**20, description="-1 or 0: no bound.")
    n: int | None = Field(None, ge=1, le=MAX_CANDIDATES, description="Answers to each prompt; null: 1.")
    stop: Stop | Annotated[list[Stop], Field(max_length=16, fail_fast=True)] | None = Field(
        None, description="Texts that end an answer; they are left out of it."
    )
    seed: Seed | None = Field(None, description="null: another one each time.")
    stream: bool | None = Field(None, description="Whether the answer comes in pieces, as it is written.")
    stream_options: StreamOptions | None = Field(None, description="include_usage: tokens are told, too.")
    user: User = None
    steps: int | None = Field(None, ge=1, le=MAX_STEPS, description="Denoising steps; null: one a token.")
    block_length: int = Field(32, ge=1, le=2**17, description="Blocks are written from left to right.")
    threshold: float | None = Field(0.9, gt=0, le=1, description="Tokens this probable come at once.")
    remasking: Remasking = Field("low_confidence", description="Which masks a step fills first.")
    presence_penalty: Zero | None = Field(None, description="0 alone.")
    frequency_penalty: Zero | None = Field(None, description="0 alone.")

    @property
    def stops(self) -> list[str]:
        """Texts to stop at."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []


class ChatRequest(GenerationRequest):
    """`POST /v1/chat/completions`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"model": "embedded", "messages": [{"role": "user", "content": "A dull film."}]}]
        }
    )

    messages: Annotated[list[Turn], Field(min_length=1, max_length=MAX_PARTS, fail_fast=True)] = Field(
        description="The conversation that the answer follows."
    )
    max_completion_tokens: Tokens | None = Field(None, description="The newer name of max_tokens.")
    response_format: TextFormat | None = Field(None, description="Text is the one there is.")
    logprobs: Off | None = Field(None, description="false alone.")

    @model_validator(mode="after")
    def one_size(self) -> ChatRequest:
        newer = self.max_completion_tokens
        if newer and self.max_tokens not in (None, newer):
            raise ValueError(
                f"max_tokens must be max_completion_tokens, {newer}, where both are given; "
                f"got {self.max_tokens}"
            )
        return self


class CompletionRequest(GenerationRequest):
    """`POST /v1/completions`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"model": "embedded", "prompt": "Rate the", "suffix": ".", "max_tokens": 4}]
        }
    )

    prompt: Text | Annotated[list[Text], Field(min_length=1, max_length=MAX_CANVASES, fail_fast=True)] = (
        Field(description="Text in front of the answer, or several.")
    )
    suffix: Text | None = Field(None, description="Text behind the answer: the masks lie between.")
    echo: Off | None = Field(None, description="false alone.")
    best_of: One | None = Field(None, description="1 alone.")
    logprobs: None = Field(None, description="null alone.")

    @property
    def prompts(self) -> list[str]:
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt


def choice(kind: Object, index: int, text: str, finish: str | None) -> dict[str, Any]:
    """One answer."""
    shape = (
        {"message": {"role": "assistant", "content": text}} if kind == "chat.completion" else {"text": text}
    )
    return {"index": index, **shape, "finish_reason": finish, "logprobs": None}


def piece(kind: Object, index: int, text: str, finish: str | None, *, first: bool) -> dict[str, Any]:
    """A part of one answer, in a stream."""
    role = {"role": "assistant"} if first else {}
    delta: dict[str, Any] = role | ({} if finish and not text else {"content": text})
    shape = {"delta": delta} if kind == "chat.completion" else {"text": text}
    return {"index": index, **shape, "finish_reason": finish, "logprobs": None}


class Envelope:
    """What every answer to one request says around its choices.

    Args:
        kind: Of answer.
        model: The served model's name.
        chunk: Whether it comes in pieces.
    """

    def __init__(self, kind: Object, model: str, *, chunk: bool) -> None:
        short = "chatcmpl" if kind == "chat.completion" else "cmpl"
        self._body = {
            "id": f"{short}-{uuid.uuid4().hex}",
            "object": f"{kind}.chunk" if chunk and kind == "chat.completion" else kind,
            "created": int(time.time()),
            "model": model,
        }

    def __call__(self, choices: Sequence[Mapping[str, Any]], usage: Usage | None = None) -> dict[str, Any]:
        counted = {} if usage is None else {"usage": usage.model_dump()}
        return {**self._body, "choices": list(choices), **counted}
