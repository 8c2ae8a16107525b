"""Cross-entropy over a large vocabulary, whose gradient takes the place of the logits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_AT_A_TIME = 2**21
"""Logits that are worked on together: what a processor's cache holds."""


def cross_entropies(logits: Tensor, targets: Tensor) -> Tensor:
    """Minus the logarithm of each target's probability, in nats.

    torch's own makes two more tensors of the logits' size, and reads and writes them many times: on a CPU, a
    fifth of the time of a head of 32,768 tokens (docs/log.md).

    Args:
        logits: Of any floating type, [rows, vocabulary]. Overwritten in the backward pass, which can be made
            once; nothing else may need them by then.
        targets: Token ids, [rows].

    Returns:
        float32, [rows].
    """
    return cast(Tensor, _CrossEntropies.apply(logits, targets))


class _CrossEntropies(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        totals, found = torch.empty_like(targets, dtype=torch.float32), []
        for rows in _chunks(logits):
            values = logits[rows].float()
            totals[rows] = values.logsumexp(1)
            found.append(totals[rows] - values.gather(1, targets[rows, None]).squeeze(1))
        ctx.save_for_backward(logits, targets, totals)
        return torch.cat(found) if found else totals

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        logits, targets, totals = ctx.saved_tensors
        for rows in _chunks(logits):
            chunk = logits[rows]
            values = chunk.float()  # the chunk itself, if it is float32
            values.sub_(totals[rows, None]).exp_()
            values.scatter_add_(1, targets[rows, None], -torch.ones_like(grad[rows, None]))
            chunk.copy_(values.mul_(grad[rows, None]))
        return logits, None


def _chunks(logits: Tensor) -> Iterator[slice]:
    size = max(1, _AT_A_TIME // logits.shape[1])
    return (slice(first, first + size) for first in range(0, len(logits), size))
