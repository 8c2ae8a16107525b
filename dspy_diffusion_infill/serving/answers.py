"""What is answered to OpenAI's requests, and about the server itself."""

from __future__ import annotations

from typing import Literal

from dspy_diffusion_infill.prompts.canvas import CacheMode
from dspy_diffusion_infill.serving.schemas import Body, Usage

Finish = Literal["stop", "length"]


class Health(Body):
    """Whether work is done."""

    status: Literal["ok", "down"]


class ModelCard(Body):
    """The served model: as OpenAI describes one, and what an infiller's client wants to know."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["dspy-diffusion-infill"] = "dspy-diffusion-infill"
    fingerprint: str
    context_length: int
    cache: CacheMode
    scorer: bool
    limits: dict[str, int | float]


class ModelList(Body):
    """All served models: one."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class ChatMessage(Body):
    """What was written."""

    role: Literal["assistant"]
    content: str


class ChatChoice(Body):
    """One answer to a conversation."""

    index: int
    message: ChatMessage
    finish_reason: Finish
    logprobs: None


class ChatAnswer(Body):
    """The answers to a conversation."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class CompletionChoice(Body):
    """One answer to a prompt."""

    index: int
    text: str
    finish_reason: Finish
    logprobs: None


class CompletionAnswer(Body):
    """The answers to prompts."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage
