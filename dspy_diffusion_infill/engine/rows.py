"""Sequences of different lengths as batches of bounded size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad as pad_tensor
from torch.nn.utils.rnn import pad_sequence

MAX_BATCH_TOKENS = {"cpu": 2048, "mps": 4096, "cuda": 16384}
"""By device: on a CPU a batch should fit its caches, a GPU is to be kept busy."""


def max_batch_tokens(device: torch.device) -> int:
    """Tokens of a batch on this device, at most."""
    return MAX_BATCH_TOKENS.get(device.type, MAX_BATCH_TOKENS["cuda"])


def token_batches(
    rows: Sequence[Sequence[int]], device: torch.device, num_context: int = 0
) -> Iterator[list[int]]:
    """Group rows of like length into batches of at most `MAX_BATCH_TOKENS` tokens, padding included.

    A row longer than that is a batch of its own.

    Args:
        rows: Token ids.
        device: Where the batches will run.
        num_context: Tokens that are in memory for each row besides, not to be computed: they count on a GPU,
            whose memory is what bounds a batch.

    Returns:
        The indices of each batch's rows, shortest rows first.
    """
    max_tokens = max_batch_tokens(device)
    kept = 0 if device.type == "cpu" else num_context
    batch: list[int] = []
    for index in sorted(range(len(rows)), key=lambda index: len(rows[index])):
        if batch and (len(batch) + 1) * (len(rows[index]) + kept) > max_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def pad(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows as one right-padded tensor of ids, and the attention mask that hides the padding.

    Example:
        >>> ids, attention_mask = pad([[5, 6, 7], [8]], torch.device("cpu"))
        >>> attention_mask.int().tolist()
        [[1, 1, 1], [1, 0, 0]]
    """
    ids = pad_sequence([torch.tensor(row) for row in rows], batch_first=True).to(device)
    lengths = torch.tensor([len(row) for row in rows], device=device)
    return ids, torch.arange(ids.shape[1], device=device) < lengths[:, None]


def stacked(first: Tensor, second: Tensor) -> Tensor:
    """Two tensors of rows as one; the shorter rows are padded on the right, with 0 or False.

    Example:
        >>> stacked(torch.tensor([[5, 6, 7]]), torch.tensor([[8]])).tolist()
        [[5, 6, 7], [8, 0, 0]]
    """
    length = max(first.shape[1], second.shape[1])
    return torch.cat([pad_tensor(rows, (0, length - rows.shape[1])) for rows in (first, second)])
