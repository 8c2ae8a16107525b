"""Conversations as training examples: token ids, which of them may be masked, and which are the response.

Never masked: the start token, role headers, the end of a system or user turn, padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor

from dspy_diffusion_infill.engine.vocabulary import Vocabulary
from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.prompts.canvas import Message
from dspy_diffusion_infill.training.loss import IGNORED
from dspy_diffusion_infill.training.masking import Objective, full_sequence, response_only


@dataclass(frozen=True, slots=True)
class Example:
    """One conversation; the three have equal lengths."""

    ids: tuple[int, ...]
    maskable: tuple[bool, ...]
    """May be masked by full-sequence masking."""
    response: tuple[bool, ...]
    """Assistant contents with the token that ends them."""


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
    maskable, response = [False] * len(layout.ids), [False] * len(layout.ids)
    for message, content in zip(messages, layout.contents, strict=True):
        answered = message.role == "assistant"
        for position in range(content.start, content.stop + answered * len(vocabulary.chat.end)):
            maskable[position] = message.role not in given
            response[position] = answered
    stop = vocabulary.padding_id
    return Example(
        (*layout.ids, *[stop] * padding),
        (*maskable, *[True] * padding),
        (*response, *[True] * padding),
    )


def mask(example: Example, objective: Objective, seed: int) -> Tensor:
    """Draw which tokens of an example are masked.

    Args:
        example: As `encode` made it.
        objective: "fs", "ro" or "answer".
        seed: Of this one draw; equal seeds mask equal tokens, whatever process draws.

    Returns:
        bool, [length].
    """
    generator = torch.Generator().manual_seed(seed)
    if objective == "fs":
        return full_sequence(torch.tensor(example.maskable), generator)
    if objective == "ro":
        return response_only(torch.tensor(example.response), generator)
    if objective == "answer":
        return torch.tensor(example.response)
    raise SettingsError(f"objective must be 'fs', 'ro' or 'answer'; got {objective!r}.")


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
        `input_ids`, `labels` and `attention_mask`, each [rows, longest].
    """
    length = max(len(example.ids) for example in examples)
    seeds = Random(seed)
    ids = torch.full((len(examples), length), vocabulary.padding_id)
    labels = torch.full((len(examples), length), IGNORED)
    attention_mask = torch.zeros(len(examples), length, dtype=torch.long)
    for row, (example, objective) in enumerate(zip(examples, objectives, strict=True)):
        masked = mask(example, objective, seeds.getrandbits(62))
        clean = torch.tensor(example.ids)
        ids[row, : len(clean)] = clean.masked_fill(masked, vocabulary.mask_token_id)
        labels[row, : len(clean)] = clean.masked_fill(~masked, IGNORED)
        attention_mask[row, : len(clean)] = 1
    return {"input_ids": ids, "labels": labels, "attention_mask": attention_mask}
