"""Passes over the masked places and their neighbours alone, beside the keys and values of all else."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import max_pool1d, pad

from dspy_diffusion_infill.engine.cache import CachingPredictor, distinct, repeat
from dspy_diffusion_infill.engine.keyvalues import KeyValues
from dspy_diffusion_infill.engine.rows import stacked

NEIGHBOURS = 32
"""Places on either side of a mask that later steps compute as well: what stands next to a window changes most
with what it is filled with."""
NEIGHBOURS_BESIDE_CONTEXT = 8
"""The same in mode *context*, where every place costs more."""
MAX_PACKED_TOKENS = 512
"""Of one canvas's candidates in one pass: each attends, in vain, to the places of all the others."""
_OF_CANVASES = ("_rank", "_places", "_in_use", "_positions", "_kept")


class WindowPasses:
    """Modes *window* and *context*: one full pass a canvas, then the masked places and their neighbours.

    After the first pass a row of a batch is a canvas with all its candidates: what is computed of them lies
    one behind the other, and a mask keeps each candidate's from the others'.

    Args:
        model: The mask predictor.
        context: What follows every canvas of the batch; None for nothing.
    """

    def __init__(self, model: CachingPredictor, context: KeyValues | None = None) -> None:
        self._model, self._context = model, context
        self._memory: KeyValues | None = None

    def logits(self, ids: Tensor, attention_mask: Tensor, wanted: Tensor, rows: Sequence[int]) -> Tensor:
        """A full pass over each canvas the first time; afterwards the places around what was masked then."""
        if self._memory is None:
            return self._first(ids, attention_mask, wanted)
        return self._later(self._memory, ids, wanted, torch.tensor(rows, device=ids.device))

    def _first(self, ids: Tensor, attention_mask: Tensor, wanted: Tensor) -> Tensor:
        first, group = distinct(ids, attention_mask, wanted)
        self._canvas = torch.tensor(group, device=ids.device)
        self._candidate = _numbered(group).to(ids.device)
        ids, given, wanted = ids[first], attention_mask[first], wanted[first]
        positions = torch.arange(ids.shape[1], device=ids.device) - given.sum(1, keepdim=True)
        self._find_places((ids == self._model.mask_token_id) & given, positions)
        self._memory = self._new_memory(*ids.shape)
        before = given.new_ones(len(ids), self._memory.start)
        visible = None if given.all() else torch.cat([before, given], 1)[:, None, None]
        hidden = self._model.encode(ids, positions, visible, self._memory)
        self._kept = torch.cat([before, given & ~self._computed], 1)
        self._memory.start += ids.shape[1]
        at, position = wanted.nonzero(as_tuple=True)
        logits = self._model.score(hidden[at, (position - self._model.shift).clamp(min=0)])
        return repeat(logits, wanted, group)

    def _find_places(self, masked: Tensor, positions: Tensor) -> None:
        """What later passes compute: places that are masked, where their logits are read, and neighbours."""
        shift = self._model.shift
        reach = NEIGHBOURS_BESIDE_CONTEXT if self._context else NEIGHBOURS
        near = max_pool1d(masked.float()[:, None], 2 * reach + 1, stride=1, padding=reach)[:, 0] > 0
        self._computed = masked | pad(masked[:, shift:], (0, shift)) | (near & (positions < 0))
        self._rank = self._computed.cumsum(1) - 1
        width = int(self._computed.sum(1).max())
        self._places = (~self._computed).int().argsort(dim=1, stable=True)[:, :width]
        self._in_use = self._computed.gather(1, self._places)
        self._positions = positions.gather(1, self._places)

    def _new_memory(self, num_rows: int, length: int) -> KeyValues:
        before = self._context.start if self._context else 0
        return KeyValues(num_rows, before + length + self._room(), self._context)

    def _room(self) -> int:
        """Places to remember of one pass over a canvas's candidates; as many go at once as is good."""
        width = self._places.shape[1]
        self._num_candidates = int(self._candidate.max()) + 1
        self._at_once = min(self._num_candidates, max(1, MAX_PACKED_TOKENS // width))
        return self._at_once * width

    def keep(self, rows: Sequence[int]) -> None:
        """As `Passes.keep`; a canvas of which no candidate is left is no longer computed."""
        assert self._memory
        canvases, self._canvas = self._canvas[list(rows)].unique(return_inverse=True)
        self._candidate = _numbered(self._canvas.tolist()).to(self._canvas.device)
        for name in _OF_CANVASES:
            setattr(self, name, getattr(self, name)[canvases])
        self._memory.keep(canvases)
        self._room()

    def join(self, other: WindowPasses) -> None:
        """As `Passes.join`."""
        assert self._memory
        assert other._memory
        self._canvas = torch.cat([self._canvas, other._canvas + len(self._places)])
        self._candidate = torch.cat([self._candidate, other._candidate])
        for name in _OF_CANVASES:
            setattr(self, name, stacked(getattr(self, name), getattr(other, name)))
        self._memory.join(other._memory, max(self._memory.start, other._memory.start) + self._room())

    def _later(self, memory: KeyValues, ids: Tensor, wanted: Tensor, rows: Tensor) -> Tensor:
        canvas, candidate = self._canvas[rows], self._candidate[rows]
        width = self._places.shape[1]
        packed = ids.new_zeros(len(self._places), self._num_candidates, width)
        packed[canvas, candidate] = ids.gather(1, self._places[canvas])
        parts = packed.split(self._at_once, dim=1)
        hidden = torch.cat([self._encode_candidates(memory, part) for part in parts], 1)
        at, position = wanted.nonzero(as_tuple=True)
        rank = self._rank[canvas[at], (position - self._model.shift).clamp(min=0)]
        return self._model.score(hidden[canvas[at], candidate[at], rank])

    def _encode_candidates(self, memory: KeyValues, packed: Tensor) -> Tensor:
        """Hidden states of what is computed of some candidates, [canvases, candidates, places, width]."""
        num_canvases, num_candidates, width = packed.shape
        visible = torch.cat(
            [
                self._kept[:, None].expand(-1, num_candidates * width, -1),
                _own_places(self._in_use, num_candidates),
            ],
            2,
        )
        positions = self._positions.repeat(1, num_candidates)
        hidden = self._model.encode(packed.flatten(1), positions, visible[:, None], memory)
        return hidden.view(num_canvases, num_candidates, width, -1)


def _numbered(canvases: Iterable[int]) -> Tensor:
    """The number of each candidate among those of its canvas, from 0."""
    numbers = defaultdict(itertools.count)
    return torch.tensor([next(numbers[canvas]) for canvas in canvases])


def _own_places(in_use: Tensor, num_candidates: int) -> Tensor:
    """Who may attend to whom among packed candidates: [canvases, candidates * places, the same].

    A place that is not in use sees itself, since a softmax over nothing is no number.
    """
    width = in_use.shape[1]
    candidate = torch.arange(num_candidates, device=in_use.device).repeat_interleave(width)
    same = candidate[:, None] == candidate
    itself = torch.eye(len(candidate), dtype=torch.bool, device=in_use.device)
    return same & in_use.repeat(1, num_candidates)[:, None] | itself
