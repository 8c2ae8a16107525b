"""The recipe of the embedded model: what it is taught, stage by stage.

Reading comes first, on one rating scheme in one wording: a reply is an impression of the review, then its
rating. Then 40 schemes; then, with the impression given, which rating it calls for in either direction of a
scale; then all scales that are taught in both directions, and all wordings. Then full-sequence SFT, beside
which every other update rehearses the replies: without that, their direction is lost. There most rows keep
the reviews in view, and later the ratings too, as an optimizer's canvas does: the lesson is the instruction.
Then the learning rate decays, and the scales of one direction join the rehearsal. Last, most examples do not
see the instruction, as in the engine's mode *context*, and up to sixteen lie beside it.

Differs from LLaDA (arXiv:2502.09992): no pretraining on unpaired text, which delayed reading; and from the
paper (arXiv:2604.03677): objectives are mixed where it has full-sequence, then response-only fine-tuning
(section 3.1 and appendix G), since response-only updates erase the infilling. What was tried, and what it
came to: docs/log.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dspy_diffusion_infill.training.schemes import NUM_PAIRED
from dspy_diffusion_infill.training.world import Stage

READING: dict[str, Any] = {
    "learning_rate": 8e-4,
    "decay": False,
    "shots": (1,),
    "objectives": ("rest",),
    "padding": 0,
}
"""One review a row, and its whole reply masked from any token on."""

SFT: dict[str, Any] = {
    "objectives": ("fs", "fs", "fs", "ro", "rest"),
    "given_share": 0.95,
}
"""Three rows of five are masked anywhere."""


def rehearsal(name: str, *, num_schemes: int | None = NUM_PAIRED, real_share: float = 0.0) -> Stage:
    """Replies again, beside another stage; no impression is given in two rows of five."""
    return Stage(
        name=name,
        num_updates=0,
        num_schemes=num_schemes,
        impression_given=0.6,
        real_share=real_share,
        **READING,
    )


STAGES = (
    Stage(name="one", num_updates=250, num_schemes=1, num_wordings=1, **READING),
    Stage(name="forty", num_updates=800, num_schemes=40, num_wordings=1, **READING),
    Stage(
        name="direction",
        num_updates=400,
        num_schemes=40,
        num_wordings=2,
        impression_given=1.0,
        **READING,
    ),
    Stage(
        name="pairs",
        num_updates=650,
        num_schemes=NUM_PAIRED,
        num_wordings=2,
        impression_given=0.9,
        **READING,
    ),
    Stage(name="wordings", num_updates=900, num_schemes=NUM_PAIRED, impression_given=0.9, **READING),
    Stage(
        name="fs",
        num_updates=1200,
        learning_rate=5e-4,
        decay=False,
        shots=(1, 4, 8, 8),
        real_share=0.05,
        rehearsal=rehearsal("again"),
        **{**SFT, "given_share": 0.85},
    ),
    Stage(
        name="infill",
        num_updates=1600,
        learning_rate=8e-4,
        decay=False,
        shots=(1, 2, 4, 8),
        real_share=0.05,
        rehearsal=rehearsal("more"),
        **SFT,
    ),
    Stage(
        name="windows",
        num_updates=1800,
        learning_rate=8e-4,
        decay=False,
        shots=(2, 4, 4, 8),
        answers_given=0.8,
        real_share=0.05,
        rehearsal=rehearsal("still"),
        **SFT,
    ),
    Stage(
        name="refine",
        num_updates=1200,
        learning_rate=8e-4,
        shots=(1, 2, 4, 8),
        answers_given=0.6,
        real_share=0.1,
        rehearsal=rehearsal("last", num_schemes=None, real_share=0.1),
        **SFT,
    ),
    Stage(
        name="blind",
        num_updates=600,
        learning_rate=5e-4,
        shots=(1, 4, 8, 16),
        answers_given=0.6,
        blind_share=0.8,
        real_share=0.1,
        rehearsal=rehearsal("blind-last", num_schemes=None, real_share=0.1),
        **SFT,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Sizes, stages and seed."""

    hidden_size: int = 192
    intermediate_size: int = 576
    num_layers: int = 5
    num_heads: int = 6
    vocab_size: int = 2560
    batch_tokens: int = 2000
    seed: int = 0
    stages: tuple[Stage, ...] = STAGES
