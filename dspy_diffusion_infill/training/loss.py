"""Masked cross-entropy, with logits at the masked positions only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from dspy_diffusion_infill.engine.attention import Apart, attends_by_example
from dspy_diffusion_infill.training.cross_entropy import cross_entropies
from dspy_diffusion_infill.training.last_layer import forward_as, only_read

IGNORED = -100
"""Label of a token that is not masked."""

MAX_LOGITS = 2**27
"""Logits held at once: half a gigabyte, or 1,061 masked tokens of LLaDA's vocabulary."""


def masked_losses(
    model: nn.Module,
    ids: Tensor,
    labels: Tensor,
    attention_mask: Tensor,
    *,
    blind: Tensor | None = None,
    shift: int = 0,
) -> Tensor:
    """Cross-entropy of every masked token, in nats.

    The paper's loss (Eq. 2 and 5) is the plain mean of these; there is no 1/t weight.

    Args:
        model: A transformers model that is not causal, with an `lm_head`; may be wrapped for DDP.
        ids: Noised token ids, [rows, length].
        labels: The clean ids where a token is masked, `IGNORED` elsewhere, [rows, length].
        attention_mask: 0 on padding; a row's examples are numbered from 1, and see only themselves,
            [rows, length].
        blind: bool, where only what is blind too can be seen, [rows, length]; None for nowhere.
        shift: How many places before a token its logits are read: 1 for Dream. Then the first token of an
            example cannot be masked.

    Returns:
        float32, [masked tokens], rows first, then positions from left to right.
    """
    masked = labels != IGNORED
    network = cast(PreTrainedModel, getattr(model, "module", model))  # under DDP
    read = masked.roll(-shift, 1)
    inputs = _attention(attention_mask, blind, read, network)
    with _losses_for_logits(network, read, labels[masked]), only_read(network, read):
        return model(input_ids=ids, use_cache=False, **inputs).logits


def _losses_for_logits(
    network: PreTrainedModel, read: Tensor, targets: Tensor
) -> AbstractContextManager[None]:
    """While open, the head gives the losses of `targets`, from the `read` positions, in place of logits.

    The head of a large vocabulary costs more memory than the whole body, and unmasked rows have no loss. All
    happens inside the model's own forward, where DDP and FSDP expect it.
    """
    head: nn.Module = network.get_output_embeddings()  # pyright: ignore[reportAssignmentType]
    logits_of = head.forward

    def losses(hidden: Tensor) -> Tensor:
        rows = hidden[read]
        size = max(1, MAX_LOGITS // cast(Tensor, head.weight).shape[0])
        if len(rows) <= size:
            return _losses(logits_of, rows, targets)
        return torch.cat(list(_in_chunks(logits_of, rows, targets, size)))

    return forward_as(head, losses)


def _in_chunks(logits_of: Any, rows: Tensor, targets: Tensor, size: int) -> Iterator[Tensor]:
    """The losses, holding the logits of one chunk alone: those of others are made again for their gradient.

    The last chunk's gradient comes first, so that its logits need not be made again: it is a whole one.
    """
    again = len(rows) - size
    for chunk in zip(rows[:again].split(size), targets[:again].split(size), strict=True):
        yield cast(Tensor, checkpoint(_losses, logits_of, *chunk, use_reentrant=False))
    yield _losses(logits_of, rows[again:], targets[again:])


def _losses(logits_of: Any, hidden: Tensor, targets: Tensor) -> Tensor:
    return cross_entropies(logits_of(hidden), targets)


def _attention(mask: Tensor, blind: Tensor | None, read: Tensor, network: Any) -> dict[str, Any]:
    """What keeps the examples of a row apart: positions from 0, and a block each; positions alone leak."""
    if int(mask.max()) <= 1 and blind is None:
        return {"attention_mask": mask}
    if blind is None and attends_by_example(network):
        lengths = [torch.unique_consecutive(row, return_counts=True)[1].tolist() for row in mask]
        return {"position_ids": _positions(mask), "apart": Apart(lengths, read)}
    same = mask[:, None, :, None] == mask[:, None, None, :]  # rows 1 length length
    if blind is not None:
        same &= ~blind[:, None, :, None] | blind[:, None, None, :]
    if network.config._attn_implementation == "eager":
        same = _added(same, network.get_input_embeddings().weight.dtype)
    return {"attention_mask": same, "position_ids": _positions(mask)}


def _positions(mask: Tensor) -> Tensor:
    """From 0 in each example, [rows, length]."""
    place = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
    begins = mask != mask.roll(1, 1)
    begins[:, 0] = True
    return place - place.where(begins, torch.zeros_like(place)).cummax(1).values


def _added(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask as eager attention takes it, which adds it to the scores."""
    mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return mask.masked_fill(~visible, torch.finfo(dtype).min)
