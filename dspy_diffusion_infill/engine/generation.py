"""How a masked diffusion LM writes an answer, and how the answer is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from dspy_diffusion_infill.engine.reverse import Decoding
from dspy_diffusion_infill.engine.vocabulary import Vocabulary
from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.prompts.canvas import Denoising, Remasking


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """How an answer is written, beside its length and temperature.

    Example:
        >>> Generation(steps=16).block_length
        32
    """

    steps: int | None = None
    """Denoising steps per answer; None: one per token."""
    block_length: int = 32
    """Tokens per semi-autoregressive block; blocks are denoised from left to right."""
    threshold: float | None = 0.9
    """Commit every token at least this probable at once (Fast-dLLM's parallel decoding); None: never."""
    remasking: Remasking = "low_confidence"
    """Which tokens a step commits."""
    seed: int = 0
    """Of the token choice, where a request does not say."""

    def __post_init__(self) -> None:
        if self.block_length < 1:
            raise SettingsError(f"block_length must be at least 1; got {self.block_length}.")
        self.decoding(0.0, frozenset())

    def decoding(self, temperature: float, stop_ids: frozenset[int]) -> Decoding:
        """The engine's settings for one request."""
        how = Denoising(
            steps=self.steps,
            temperature=temperature,
            remasking=self.remasking,
            threshold=self.threshold,
            cache="exact",
        )
        return Decoding(denoising=how, block_length=self.block_length, stop_ids=stop_ids)

    def __str__(self) -> str:
        return "&".join(f"{field.name}={getattr(self, field.name)}" for field in fields(self))


@dataclass(frozen=True, slots=True)
class Answer:
    """What was written in place of an answer's masks, as far as it counts."""

    text: str
    stopped: bool
    """Whether a stop token or a stop text ended it."""
    num_tokens: int
    """Up to the stop token, which is one of them."""


def read_answer(vocabulary: Vocabulary, ids: Sequence[int], stops: Sequence[str]) -> Answer:
    """Read an answer up to its first stop token, or to a text that the caller wants it to stop at.

    Of several such texts the one that ends first counts, as it does while the answer is still written.
    """
    end = next((at for at, token in enumerate(ids) if token in vocabulary.stop_ids), len(ids))
    text = vocabulary.decode(ids[:end])
    found = [(at + len(stop), at) for stop in stops if (at := text.find(stop)) >= 0]
    kept = min(found)[1] if found else len(text)
    return Answer(text[:kept], end < len(ids) or kept < len(text), min(end + 1, len(ids)))
