"""The bodies of infill, score and tokenize: what is asked, what is answered, and every bound on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, model_validator

from dspy_diffusion_infill.prompts.canvas import (
    CacheMode,
    Canvas,
    Denoising,
    Filling,
    Length,
    Masked,
    Message,
    Remasking,
    Role,
)
from dspy_diffusion_infill.serving.limits import (
    MAX_CANDIDATES,
    MAX_CANVASES,
    MAX_PARTS,
    MAX_STEPS,
    MAX_TEXT,
)

ANY_TEXT = WithJsonSchema({"type": "string"})
"""Bounds of many characters are not in the document: who tries them out sends more than a body may have."""
Text = Annotated[str, Field(max_length=MAX_TEXT), ANY_TEXT]
"""With a bound, pydantic reads it as UTF-8: half of a surrogate pair, which no tokenizer takes, is none."""
Tokens = Annotated[int, Field(ge=1, le=2**17)]
Seed = Annotated[int, Field(ge=-(10**19), le=10**19)]
"""Any of 64 bits. OpenAPI's bounds are floats: powers of two would be rounded there."""
ModelName = Annotated[Text | None, Field(description="The served model's name; may be left out.")]
User = Annotated[str | None, Field(max_length=256, description="Turns are taken between users of one key.")]


def given(*names: str, without: Sequence[str] = ()) -> dict[str, Any]:
    """A JSON schema of bodies that have some fields, and have others null, empty or not at all."""
    some, none = {"not": {"type": "null"}}, {"enum": [None, []]}
    return {"required": [*names], "properties": dict.fromkeys(names, some) | dict.fromkeys(without, none)}


class Body(BaseModel):
    """What is not named is refused, and numbers are numbers: no NaN, no "8".

    Complaints are made on the event loop, and a body has room for a million of them. So every list stops at
    its first (`fail_fast`), and of too many fields one that is not known is kept, to be complained of.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _few_fields(cls, given: Any) -> Any:
        known = cls.model_fields
        if not isinstance(given, dict) or len(given) <= len(known):
            return given
        unknown = next(name for name in given if name not in known)
        return {name: given[name] for name in (*known, unknown) if name in given}


class MaskPart(Body):
    """Mask tokens, to be filled with text."""

    mask: Tokens | Annotated[list[Tokens], Field(min_length=2, max_length=2, fail_fast=True)] = Field(
        description="How many; or [least, most]: as many as the model is surest of.", examples=[8, [4, 12]]
    )

    def read(self) -> Masked:
        return Masked(self.mask) if isinstance(self.mask, int) else Masked(*self.mask)


class TextMessage(Body):
    """A turn without masks."""

    role: Role
    content: Text

    def read(self) -> Message:
        return Message.text(self.role, self.content)


class MaskedMessage(Body):
    """A turn of text and masks."""

    role: Role
    content: (
        Text | Annotated[list[Text | MaskPart], Field(min_length=1, max_length=MAX_PARTS, fail_fast=True)]
    )

    def read(self) -> Message:
        parts = [self.content] if isinstance(self.content, str) else self.content
        return Message(self.role, tuple(part if isinstance(part, str) else part.read() for part in parts))


Conversation = Annotated[list[TextMessage], Field(max_length=MAX_PARTS, fail_fast=True)]


HAS_MASK: dict[str, Any] = {"properties": {"content": {"type": "array", "contains": {"type": "object"}}}}
"""A JSON schema of turns with a mask."""


class CanvasBody(Body):
    """A conversation with at least one masked part."""

    messages: Annotated[list[MaskedMessage], Field(min_length=1, max_length=MAX_PARTS, fail_fast=True)] = (
        Field(json_schema_extra={"contains": HAS_MASK})
    )

    def read(self, context: list[TextMessage]) -> Canvas:
        """The canvas, with what follows it.

        Raises:
            CanvasError: If it holds no mask.
        """
        return Canvas(
            tuple(message.read() for message in self.messages), tuple(message.read() for message in context)
        )


class InfillRequest(Body):
    """Canvases to be filled, and how."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "canvases": [
                        {"messages": [{"role": "system", "content": ["Rate the text", {"mask": 4}, "."]}]}
                    ],
                    "n": 2,
                    "temperature": 0.8,
                }
            ]
        }
    )

    model: ModelName = None
    canvases: Annotated[list[CanvasBody], Field(min_length=1, max_length=MAX_CANVASES, fail_fast=True)] = (
        Field(description="Conversations, each with text and masks.")
    )
    context: Conversation = Field([], description="Turns that follow every canvas: few-shot examples.")
    n: int = Field(1, ge=1, le=MAX_CANDIDATES, description="Fillings of each canvas.")
    seed: Seed = Field(0, description="Equal requests of equal seed get equal answers.")
    steps: int | None = Field(None, ge=1, le=MAX_STEPS, description="Denoising steps; null: one a mask.")
    temperature: float = Field(0.8, ge=0, le=10, description="Of the choice of tokens; 0: the likeliest.")
    top_p: float | None = Field(None, gt=0, le=1, description="Only the likeliest tokens that sum to this.")
    top_k: int | None = Field(None, ge=1, le=2**20, description="Only this many likeliest tokens.")
    guidance: float = Field(0.0, ge=0, le=10, description="Classifier-free; another pass every step.")
    remasking: Remasking = Field("low_confidence", description="Which masks a step fills first.")
    threshold: float | None = Field(None, gt=0, le=1, description="Tokens this probable come at once.")
    length: Length = Field("fixed", description="adaptive: as many masks as the model is surest of.")
    cache: CacheMode = Field("auto", description="What a step reuses of earlier ones.")
    user: User = None

    def denoising(self) -> Denoising:
        """How masks are turned into text."""
        given = self.model_dump(exclude={"model", "canvases", "context", "n", "seed", "user"})
        return Denoising(**given, num_candidates=self.n)


class Usage(Body):
    """Tokens read and written."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int

    @classmethod
    def of(cls, prompt: int, completion: int) -> Usage:
        return cls(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)


class FillingBody(Body):
    """One way to fill a canvas."""

    texts: list[str] = Field(description="For each masked part, in reading order.")
    confidences: list[list[float]] = Field(description="For each, its tokens' probabilities when committed.")
    log_likelihood: float = Field(description="The sum of their logarithms, in nats.")
    num_passes: int = Field(description="Forward passes that it took part in.")

    @classmethod
    def of(cls, filling: Filling) -> FillingBody:
        return cls(
            texts=list(filling.texts),
            confidences=[list(part) for part in filling.confidences],
            log_likelihood=filling.log_likelihood,
            num_passes=filling.num_passes,
        )


class InfillAnswer(Body):
    """The fillings of each canvas, in the order asked."""

    model: str
    fillings: list[list[FillingBody]]
    usage: Usage


ErrorKind = Literal["invalid_request_error", "server_error"]


class ErrorBody(BaseModel):
    """What went wrong, in a sentence."""

    message: str
    type: ErrorKind
    code: str
    param: str | None = None


class ErrorAnswer(BaseModel):
    """Every answer that is not a success."""

    error: ErrorBody
