"""The keys and values of a transformer, kept from pass to pass."""

from __future__ import annotations

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

    def _allocate(self, like: Tensor, layer: int, which: int) -> Tensor:
        stored = like.new_empty(self._num_rows, like.shape[1], self._capacity, like.shape[3])
        if self._prefix:
            stored[:, :, : self.start] = self._prefix._layers[layer][which][:, :, : self.start]
        return stored
