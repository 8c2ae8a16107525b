"""Conversations as training examples: token ids, which of them may be masked, and which are the response.

Never masked: the start token, role headers, the end of a system or user turn, padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

import torch
from torch import Tensor

from dspy_diffusion_infill.engine.vocabulary import Vocabulary
from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.prompts.canvas import Message
from dspy_diffusion_infill.training.loss import IGNORED
from dspy_diffusion_infill.training.masking import (
    Objective,
    exact_count,
    full_sequence,
    response_only,
    rest,
)
from dspy_diffusion_infill.training.packing import Noised, lay_out

Weighting = Literal["mean", "inverse_t"]
"""Of the masked tokens' losses: the paper's plain mean, or LLaDA's 1/t, which bounds the likelihood."""


@dataclass(frozen=True, slots=True)
class Example:
    """One conversation; the three have equal lengths."""

    ids: tuple[int, ...]
    maskable: tuple[bool, ...]
    """May be masked by full-sequence masking."""
    response: tuple[bool, ...]
    """Assistant contents with the token that ends them; where none does, the last one with a stop token."""
    context_start: int | None = None
    """From this token on, nothing sees what lies before it, as in the engine's mode *context*; None: all sees
    all."""


def encode(
    messages: Sequence[Message],
    vocabulary: Vocabulary,
    *,
    given: frozenset[str] = frozenset(),
    padding: int = 0,
) -> Example:
    """Lay a conversation out for training.

    Args:
        messages: Turns without masked parts.
        vocabulary: Of the model to train.
        given: Roles whose contents full-sequence masking leaves visible; none, as in the paper, by default.
        padding: Stop tokens trained on after the last answer, so that an answer may be generated into more
            room than it needs. LLaDA's SFT trains on all padding; here it is asked for by number.

    Example:
        >>> from dspy_diffusion_infill.engine.model import load
        >>> vocabulary = load("embedded").vocabulary
        >>> example = encode([Message.text("user", "Hi."), Message.text("assistant", "4")], vocabulary)
        >>> vocabulary.decode([i for i, r in zip(example.ids, example.response) if r])
        '4<|eot_id|>'
    """
    layout = vocabulary.lay_out(messages)
    # a family may open with a system turn of its own, never masked
    own = layout.contents[len(layout.contents) - len(messages) :]
    ids = layout.ids
    if not vocabulary.chat.end and messages and messages[-1].role == "assistant":
        # such a model stops at a stop token alone: it is taught to write one
        ids, padding = ids[: own[-1].stop], padding + 1
    maskable, response = [False] * len(ids), [False] * len(ids)
    for message, content in zip(messages, own, strict=True):
        answered = message.role == "assistant"
        for position in range(content.start, content.stop + answered * len(vocabulary.chat.end)):
            maskable[position] = message.role not in given
            response[position] = answered
    stop = vocabulary.padding_id
    return Example(
        (*ids, *[stop] * padding),
        (*maskable, *[True] * padding),
        (*response, *[True] * padding),
    )


def mask(example: Example, objective: Objective, seed: int, t: float | None = None) -> Tensor:
    """Draw which tokens of an example are masked.

    Args:
        example: As `encode` made it.
        objective: "fs", "ro" or "rest".
        seed: Of this one draw; equal seeds mask equal tokens, whatever process draws.
        t: Noise level; None draws it too. "rest" has none.

    Returns:
        bool, [length].
    """
    generator = torch.Generator().manual_seed(seed)
    if objective == "fs":
        return full_sequence(torch.tensor(example.maskable), generator, t)
    if objective == "ro":
        return response_only(torch.tensor(example.response), generator, t)
    if objective == "rest":
        return rest(torch.tensor(example.response), generator)
    raise SettingsError(f"objective must be 'fs', 'ro' or 'rest'; got {objective!r}.")


def noise(
    example: Example,
    objective: Objective,
    seed: int,
    mask_token_id: int,
    *,
    t: float | None = None,
    weighting: Weighting = "mean",
) -> Noised:
    """Mask an example, and weigh the losses of its masked tokens.

    Args:
        example: As `encode` made it.
        objective: How it is masked.
        seed: Of this one draw.
        mask_token_id: The absorbing state.
        t: Noise level; None draws it.
        weighting: "mean" for the paper's masks and equal weights; "inverse_t" for LLaDA's likelihood bound,
            of the prompt and response with "fs", else of the response: `exact_count` of n tokens are masked,
            k of them, and weigh n / k.
    """
    clean, weights = torch.tensor(example.ids), None
    if weighting == "inverse_t":
        maskable = torch.tensor(example.maskable if objective == "fs" else example.response)
        masked = exact_count(maskable, torch.Generator().manual_seed(seed), t)
        weights = masked * (maskable.sum() / masked.sum())
    else:
        masked = mask(example, objective, seed, t)
    blind = None
    if example.context_start is not None:
        blind = torch.arange(len(example.ids)) >= example.context_start
    return Noised(
        clean.masked_fill(masked, mask_token_id), clean.masked_fill(~masked, IGNORED), weights, blind
    )


def collate(
    examples: Sequence[Example], objectives: Sequence[Objective], seed: int, vocabulary: Vocabulary
) -> dict[str, Tensor]:
    """Noise and pad a batch.

    Args:
        examples: The rows.
        objectives: One a row.
        seed: Of the batch; row noise is seeded from it in order.
        vocabulary: For the mask token.

    Returns:
        As `packing.lay_out`, an example a row.
    """
    seeds = Random(seed)
    rows = [
        [noise(example, objective, seeds.getrandbits(62), vocabulary.mask_token_id)]
        for example, objective in zip(examples, objectives, strict=True)
    ]
    return lay_out(rows, vocabulary.padding_id)
