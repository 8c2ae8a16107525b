"""Noised examples as a batch: several to a row, or one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dspy_diffusion_infill.training.loss import IGNORED


class Noised(NamedTuple):
    """One example with masks; each is [length]."""

    ids: Tensor
    """Mask tokens where it is masked."""
    labels: Tensor
    """The clean ids there, `IGNORED` elsewhere."""
    weights: Tensor | None = None
    """Of the tokens' losses; None: all equal."""
    blind: Tensor | None = None
    """Where only what is blind too can be seen; None: all sees all."""


def lay_out(rows: Sequence[Sequence[Noised]], padding_id: int) -> dict[str, Tensor]:
    """Lay the examples of each row end to end, and pad the rows to the longest.

    Args:
        rows: The examples of each row, at least one.
        padding_id: Fills what is left of a row.

    Returns:
        `input_ids`, `labels` and `attention_mask`, each [rows, longest], and `weights` if the examples have
        any, and `blind` if some are. The attention mask numbers the examples of a row from 1; 0 is padding.
    """
    length = max(sum(len(one.ids) for one in row) for row in rows)
    shape = (len(rows), length)
    batch = {
        "input_ids": torch.full(shape, padding_id),
        "labels": torch.full(shape, IGNORED),
        "attention_mask": torch.zeros(shape, dtype=torch.long),
    }
    if rows[0][0].weights is not None:
        batch["weights"] = torch.zeros(shape)
    if any(one.blind is not None for row in rows for one in row):
        batch["blind"] = torch.zeros(shape, dtype=torch.bool)
    for row, examples in enumerate(rows):
        start = 0
        for number, one in enumerate(examples, start=1):
            place = slice(start, start := start + len(one.ids))
            batch["input_ids"][row, place] = one.ids
            batch["labels"][row, place] = one.labels
            batch["attention_mask"][row, place] = number
            if one.weights is not None:
                batch["weights"][row, place] = one.weights
            if one.blind is not None:
                batch["blind"][row, place] = one.blind
    return batch


def spread(lengths: Sequence[int], num_rows: int) -> list[list[int]]:
    """Share examples out over rows of about equal length: the longest first, each into the shortest row.

    Args:
        lengths: Of the examples, in tokens; at least `num_rows` of them.
        num_rows: Rows, none of them empty.

    Returns:
        Indices of the examples of each row, in order.

    Example:
        >>> spread([5, 1, 4, 2], 2)
        [[0, 1], [2, 3]]
    """
    rows: list[list[int]] = [[] for _ in range(num_rows)]
    totals = [0] * num_rows
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        shortest = min(range(num_rows), key=lambda row: (totals[row], row))
        rows[shortest].append(index)
        totals[shortest] += lengths[index]
    return [sorted(row) for row in rows]
