"""The keys and values of a transformer, kept from pass to pass."""

from __future__ import annotations

import torch
from torch import Tensor


class KeyValues:
    """Keys and values of every layer, under transformers' name for storing and reading them.

    A pass writes its own from place `start` on, over what lay there, and attends to all up to them.

    Args:
        num_rows: Sequences.
        capacity: Places of each.
        prefix: What every row begins with; its first `start` places are copied.
    """

    def __init__(self, num_rows: int, capacity: int, prefix: KeyValues | None = None) -> None:
        self.start = prefix.start if prefix else 0
        self._num_rows, self._capacity, self._prefix = num_rows, capacity, prefix
        self._layers: list[tuple[Tensor, Tensor]] = []

    def update(self, keys: Tensor, values: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Store what a layer computed, [rows, heads, places, size], and give it all it attends to."""
        if layer == len(self._layers):
            # keys too have the values' precision, also where they were rotated in a higher one
            self._layers.append((self._allocate(values, layer, 0), self._allocate(values, layer, 1)))
        stop = self.start + keys.shape[2]
        stored_keys, stored_values = self._layers[layer]
        stored_keys[:, :, self.start : stop] = keys
        stored_values[:, :, self.start : stop] = values
        return stored_keys[:, :, :stop], stored_values[:, :, :stop]

    def keep(self, rows: Tensor) -> None:
        """Drop all other sequences."""
        self._num_rows = len(rows)
        self._layers = [
            (keys[rows.to(keys.device)], values[rows.to(values.device)]) for keys, values in self._layers
        ]

    def join(self, other: KeyValues, capacity: int) -> None:
        """Take the sequences of another memory in, after these; afterwards all end at the same place."""
        self._layers = [
            (
                _stacked(keys[:, :, : self.start], more_keys[:, :, : other.start], capacity),
                _stacked(values[:, :, : self.start], more_values[:, :, : other.start], capacity),
            )
            for (keys, values), (more_keys, more_values) in zip(self._layers, other._layers, strict=True)
        ]
        self.start, self._capacity = max(self.start, other.start), capacity
        self._num_rows += other._num_rows

    def _allocate(self, like: Tensor, layer: int, which: int) -> Tensor:
        stored = like.new_empty(self._num_rows, like.shape[1], self._capacity, like.shape[3])
        if self._prefix:
            stored[:, :, : self.start] = self._prefix._layers[layer][which][:, :, : self.start]
        return stored


def _stacked(first: Tensor, second: Tensor, capacity: int) -> Tensor:
    """Both one above the other, with room for `capacity` places.

    Zeros, since what nobody may attend to is still multiplied, by 0: it must be a number.
    """
    shape = (len(first) + len(second), first.shape[1], capacity, first.shape[3])
    stored = torch.zeros(shape, dtype=first.dtype, device=first.device)
    stored[: len(first), :, : first.shape[2]] = first
    stored[len(first) :, :, : second.shape[2]] = second
    return stored
