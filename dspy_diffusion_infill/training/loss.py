"""Masked cross-entropy, with logits at the masked positions only."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

IGNORED = -100
"""Label of a token that is not masked."""


def masked_losses(model: nn.Module, ids: Tensor, labels: Tensor, attention_mask: Tensor) -> Tensor:
    """Cross-entropy of every masked token, in nats.

    The paper's loss (Eq. 2 and 5) is the plain mean of these; there is no 1/t weight.

    Args:
        model: A transformers model that is not causal, with an `lm_head`; may be wrapped for DDP.
        ids: Noised token ids, [rows, length].
        labels: The clean ids where a token is masked, `IGNORED` elsewhere, [rows, length].
        attention_mask: 0 on padding, [rows, length].

    Returns:
        float32, [masked tokens], rows first, then positions from left to right.
    """
    masked = labels != IGNORED
    network = cast(PreTrainedModel, getattr(model, "module", model))  # under DDP
    head: nn.Module = network.get_output_embeddings()  # pyright: ignore[reportAssignmentType]
    # The head of a large vocabulary costs more memory than the whole body; unmasked rows have no loss.
    hook = head.register_forward_pre_hook(lambda _, hidden: (hidden[0][masked],))
    try:
        logits = model(input_ids=ids, attention_mask=attention_mask, use_cache=False).logits
    finally:
        hook.remove()
    return cross_entropy(logits.float(), labels[masked], reduction="none")
