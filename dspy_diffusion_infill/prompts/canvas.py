"""The seam between text and model: a canvas of messages with masked parts, and who can fill it.

Pure: no dspy, no torch. The same shapes travel over HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal, Protocol, get_args, runtime_checkable

from dspy_diffusion_infill.checks import check_finite, check_whole
from dspy_diffusion_infill.errors import CanvasError, SettingsError

Role = Literal["system", "user", "assistant"]
Remasking = Literal["low_confidence", "entropy", "top_k_margin", "random"]
Length = Literal["fixed", "adaptive"]
CacheMode = Literal["auto", "exact", "window", "context"]


@dataclass(frozen=True, slots=True)
class Masked:
    """A run of mask tokens, to be filled with text.

    Example:
        >>> Masked(4, 12).num_tokens
        4
    """

    num_tokens: int
    most: int | None = None
    """If set, the number of mask tokens is the one from `num_tokens` to this that the model is surest of."""

    def __post_init__(self) -> None:
        if self.num_tokens < 1:
            raise CanvasError(f"num_tokens must be at least 1; got {self.num_tokens}.")
        if self.most is not None and self.most < self.num_tokens:
            raise CanvasError(f"most must be at least num_tokens, {self.num_tokens}; got {self.most}.")


@dataclass(frozen=True, slots=True)
class Message:
    """One chat turn: given text and masked parts, in reading order."""

    role: Role
    parts: tuple[str | Masked, ...]

    @classmethod
    def text(cls, role: Role, content: str) -> Message:
        """A turn without masks."""
        return cls(role, (content,))


@dataclass(frozen=True, slots=True)
class Canvas:
    """What an infiller is shown: messages with masked parts, then a context without any.

    The context (few-shot examples with their reference outputs) follows the messages in reading order.
    Canvases that share one context hold equal tuples, so that a model may encode it once.

    Example:
        >>> canvas = Canvas((Message("system", ("Rate ", Masked(3), ".")),))
        >>> canvas.num_masked_parts
        1
    """

    messages: tuple[Message, ...]
    context: tuple[Message, ...] = ()

    def __post_init__(self) -> None:
        if not self.num_masked_parts:
            raise CanvasError("A canvas must hold at least one masked part; got none.")
        if any(isinstance(part, Masked) for message in self.context for part in message.parts):
            raise CanvasError("The context of a canvas must hold no masked part; put masks in its messages.")

    @property
    def num_masked_parts(self) -> int:
        return sum(isinstance(part, Masked) for message in self.messages for part in message.parts)


def check_texts(canvases: Sequence[Canvas], texts: Sequence[Sequence[str]]) -> None:
    """Refuse texts that are not one for each masked part of each canvas.

    Raises:
        CanvasError: If they are not.
    """
    if len(canvases) != len(texts):
        raise CanvasError(f"texts must be as many as canvases, {len(canvases)}; got {len(texts)}.")
    for canvas, each in zip(canvases, texts, strict=True):
        given = [] if isinstance(each, str) else list(each)
        if len(given) != canvas.num_masked_parts:
            raise CanvasError(
                f"texts must hold one text for each masked part, {canvas.num_masked_parts}; "
                f"got {given or each!r}."
            )


@dataclass(frozen=True, slots=True)
class Filling:
    """One way to fill a canvas."""

    texts: tuple[str, ...]
    """One text per masked part, in reading order."""
    log_likelihood: float
    """Sum over the committed tokens of the model's log probability when it committed them, in nats."""
    num_passes: int
    """Forward passes of the model that this filling took part in."""
    confidences: tuple[tuple[float, ...], ...] = ()
    """Per masked part, the probability of each token when it was committed; empty where nobody says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Denoising:
    """How masks are turned into text.

    Example:
        >>> Denoising(temperature=0.0).num_candidates
        8
    """

    num_candidates: int = 8
    """Fillings drawn per window."""
    steps: int | None = None
    """Denoising steps; None: one per masked token. Never more than there are masked tokens."""
    temperature: float = 0.8
    """Of the token choice, in units of logits; 0 takes the likeliest token (paper: 0.8 LLaDA, 0.1 Dream)."""
    top_p: float | None = None
    """Choose among the likeliest tokens whose probabilities first reach this sum; None: among all."""
    top_k: int | None = None
    """Choose among this many likeliest tokens; None: among all."""
    guidance: float = 0.0
    """Classifier-free: how far logits move away from those of the canvas with its given text masked; 0: not
    at all. Costs another full pass at every step."""
    remasking: Remasking = "low_confidence"
    """Which masked tokens a step commits: those whose chosen token is likeliest (low_confidence), whose
    distribution has the least entropy, whose two likeliest tokens lie furthest apart, or random ones."""
    threshold: float | None = None
    """Beside the step's quota, commit every token at least this probable; None: the quota alone."""
    length: Length = "fixed"
    """Mask tokens of a masked part: as many as asked for, or the number near it that the model is surest of
    at its first step (adaptive), for about seven more passes a part."""
    cache: CacheMode = "auto"
    """What a step reuses of earlier ones: nothing (exact); all but what is near the masks of its canvas,
    computed once (window); and the few-shot context besides, computed once for all canvases, without sight
    of the instructions (context). "auto": what `calibrate` chose for the model, else window."""

    def __post_init__(self) -> None:
        whole = {name: getattr(self, name) for name in ("num_candidates", "steps", "top_k")}
        check_whole({name: value for name, value in whole.items() if value is not None})
        real = {name: getattr(self, name) for name in ("temperature", "top_p", "guidance", "threshold")}
        check_finite({name: value for name, value in real.items() if value is not None})
        if self.num_candidates < 1:
            raise SettingsError(f"num_candidates must be at least 1; got {self.num_candidates}.")
        if self.steps is not None and self.steps < 1:
            raise SettingsError(f"steps must be at least 1, or None; got {self.steps}.")
        if not 0 <= self.temperature <= 10:
            raise SettingsError(f"temperature must be between 0 and 10; got {self.temperature}.")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise SettingsError(f"top_p must be above 0 and at most 1, or None; got {self.top_p}.")
        if self.top_k is not None and self.top_k < 1:
            raise SettingsError(f"top_k must be at least 1, or None; got {self.top_k}.")
        if not 0 <= self.guidance <= 10:
            raise SettingsError(f"guidance must be between 0 and 10; got {self.guidance}.")
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise SettingsError(f"threshold must be above 0 and at most 1, or None; got {self.threshold}.")
        for name, kind in (("remasking", Remasking), ("length", Length), ("cache", CacheMode)):
            if getattr(self, name) not in get_args(kind):
                known = ", ".join(map(repr, get_args(kind)))
                raise SettingsError(f"{name} must be one of {known}; got {getattr(self, name)!r}.")

    def __str__(self) -> str:
        """Every setting that changes a filling, but for those that are not set."""
        settings = {field.name: getattr(self, field.name) for field in fields(self)}
        del settings["num_candidates"]
        return "&".join(f"{name}={value}" for name, value in settings.items() if value is not None)


@runtime_checkable
class Infiller(Protocol):
    """Fills canvases. In process, over HTTP, or a double in a test.

    Obligations: answers have the order and length of `canvases`, with `num_candidates` fillings each
    (fillings of one canvas may repeat); nothing passed in is changed; equal arguments give equal answers.
    """

    @property
    def name(self) -> str:
        """Identifies the model and every setting that changes its answers."""
        ...

    @property
    def context_length(self) -> int:
        """The most tokens a canvas may have."""
        ...

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Character range (start, end) of each token of `text`, in order; no special tokens."""
        ...

    def num_tokens(self, canvas: Canvas) -> int:
        """Tokens of the whole canvas as the model will see it, masks and chat template included."""
        ...

    def infill(self, canvases: Sequence[Canvas], *, num_candidates: int, seed: int) -> list[list[Filling]]:
        """Fill every canvas `num_candidates` times."""
        ...


@runtime_checkable
class Scorer(Protocol):
    """What an `Infiller` may offer besides: how likely it finds a text that is there already.

    Needed where windows are taken by how unsure the model is of them (`SlidingWindow(order="least_sure")`),
    and where fillings are screened (`Selection(screen=...)`).
    """

    def nll_per_token(self, canvases: Sequence[Canvas], texts: Sequence[Sequence[str]]) -> list[float]:
        """Negative log-likelihood of texts in the masked parts of canvases, in nats per token.

        Args:
            canvases: Each with the rest of the prompt and what conditions it.
            texts: For each canvas one text a masked part, in reading order; its own number of tokens counts,
                not the number of masks.
        """
        ...
