"""Attention that takes the examples of a row one by one.

A mask that keeps them apart costs memory and time as the square of the whole row's length.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

_NAME = "sdpa_by_example"
_FAST_TO = 1024
"""Tokens up to which two products and what is between them are faster on a CPU than torch's kernel: see
docs/log.md."""


class Apart(NamedTuple):
    """How the rows of a batch divide into examples that do not see each other."""

    lengths: Sequence[Sequence[int]]
    """Of the examples of each row, in order, padding at its end among them; their sum is the row's."""
    read: Tensor
    """bool, where the last layer's output is read; it attends to nothing elsewhere, [rows, length]."""


def attend_by_example(network: PreTrainedModel) -> None:
    """Let a network that attends with torch's own kernels take `apart=Apart(...)` in its forward.

    Without it, it attends as before. One that attends otherwise is left as it is.

    Args:
        network: Of transformers, not causal. Modified; what is saved of it is not.
    """
    if network.config._attn_implementation == "sdpa":
        network.set_attn_implementation(_NAME)


def attends_by_example(network: PreTrainedModel) -> bool:
    """Whether its forward takes `apart`."""
    return network.config._attn_implementation == _NAME


def _attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    apart: Apart | None = None,
    **settings: Any,
) -> tuple[Tensor, None]:
    # Rotated ones may be more precise than the rest: see `rotation`.
    query, key = query.to(value.dtype), key.to(value.dtype)
    if apart is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **settings)
    config, layer = cast(Any, module.config), cast(int, module.layer_idx)
    attend = _where_read if layer + 1 == config.num_hidden_layers else _whole
    rows = []
    for row, lengths in enumerate(apart.lengths):
        parts = (states[row : row + 1].split(lengths, dim=2) for states in (query, key, value))
        examples = zip(*parts, apart.read[row].split(lengths), strict=True)
        rows.append(torch.cat([attend(module, settings, *example) for example in examples], dim=1))
    return torch.cat(rows), None


def _whole(
    module: torch.nn.Module, settings: dict[str, Any], query: Tensor, key: Tensor, value: Tensor, _: Tensor
) -> Tensor:
    if _by_products(query, key, settings):
        return _products(query, key, value, settings["scaling"])
    return sdpa_attention_forward(module, query, key, value, None, **settings)[0]


def _by_products(query: Tensor, key: Tensor, settings: dict[str, Any]) -> bool:
    """Torch's kernel is slow in bfloat16 on CPUs, backwards above all; in float32 both take as long."""
    slow = query.device.type == "cpu" and query.dtype is torch.bfloat16
    return slow and key.shape[2] <= _FAST_TO and not settings.get("dropout")


def _products(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    """Queries [1, heads, n, d], keys and values [1, groups, m, d]; returns [1, n, heads, d]."""
    # The heads of a group follow each other, so that its keys serve them without being repeated.
    grouped = (query * scaling).reshape(1, key.shape[1], -1, query.shape[3])
    weights = (grouped @ key.transpose(2, 3)).softmax(dim=-1)
    return (weights @ value).reshape(query.shape).transpose(1, 2)


def _where_read(
    module: torch.nn.Module,
    settings: dict[str, Any],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    read: Tensor,
) -> Tensor:
    # One place at least: kernels refuse none, and gradients of keys and values are zeros then, not missing.
    places = read.nonzero()[:, 0]
    if not len(places):
        places = places.new_zeros(1)
    found = _whole(module, settings, query[:, :, places], key, value, read)
    return found.new_zeros(1, query.shape[2], *found.shape[2:]).index_copy(1, places, found)


AttentionInterface.register(_NAME, _attend)
AttentionMaskInterface.register(_NAME, sdpa_mask)
