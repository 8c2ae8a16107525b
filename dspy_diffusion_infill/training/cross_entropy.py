"""Cross-entropy over a large vocabulary, whose gradient takes the place of the logits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_AT_A_TIME = 2**20
"""Logits that are worked on together: what a processor's cache holds."""
_AT_A_TIME_ON_GPU = 2**25
"""The same where each step is a kernel to be launched."""


def cross_entropies(logits: Tensor, targets: Tensor) -> Tensor:
    """Minus the logarithm of each target's probability, in nats.

    torch's own makes two more tensors of the logits' size, and reads and writes them many times: on a CPU, a
    fifth of the time of a head of 32,768 tokens (docs/log.md).

    Args:
        logits: Of any floating type, [rows, vocabulary]. Overwritten where they need a gradient, which can be
            made once; nothing else may need them.
        targets: Token ids, [rows].

    Returns:
        float32, [rows].
    """
    return cast(Tensor, _CrossEntropies.apply(logits, targets))


class _CrossEntropies(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        losses = torch.empty_like(targets, dtype=torch.float32)
        for rows in _chunks(logits):
            chunk, wanted = logits[rows], targets[rows, None]
            values = chunk.float()  # the chunk itself, if it is float32
            largest, own = values.amax(1, keepdim=True), values.gather(1, wanted)
            odds = values.softmax(1)
            # Its own probability would be 0 where it is very unlikely; the largest never is.
            losses[rows] = (largest - odds.amax(1, keepdim=True).log() - own).squeeze(1)
            if ctx.needs_input_grad[0]:
                chunk.copy_(odds.scatter_add_(1, wanted, -torch.ones_like(own)))
        ctx.save_for_backward(logits)
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (gradient,) = ctx.saved_tensors
        for rows in _chunks(gradient):  # of less precision, the whole would be copied to float32 and back
            gradient[rows].mul_(grad[rows, None])
        return gradient, None


def _chunks(logits: Tensor) -> Iterator[slice]:
    at_a_time = _AT_A_TIME if logits.device.type == "cpu" else _AT_A_TIME_ON_GPU
    size = max(1, at_a_time // logits.shape[1])
    return (slice(first, first + size) for first in range(0, len(logits), size))
