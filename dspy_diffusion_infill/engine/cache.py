"""Forward passes of the reverse process, and the keys and values that they need not compute again.

Three modes. *exact*: every step is a full pass. *window*: one full pass a canvas; later steps compute the
masked places and their neighbours alone, which attend to the keys and values that the first pass left
everywhere else. *context*: as *window*, and the few-shot context is encoded by itself, blind to the
instructions, once for all canvases that share it.

Source: the dual cache of Fast-dLLM (arXiv:2505.22618), for *window*. Differs: batched, masks may lie
anywhere, neighbours are computed again, and the candidates of a canvas share its keys and values instead of
copying them.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn.functional import max_pool1d, pad

from dspy_diffusion_infill.engine.keyvalues import KeyValues
from dspy_diffusion_infill.engine.model import MaskPredictor
from dspy_diffusion_infill.engine.rows import max_batch_tokens
from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.prompts.canvas import CacheMode

NEIGHBOURS = 32
"""Places on either side of a mask that later steps compute as well: what stands next to a window changes most
with what it is filled with."""
MAX_PACKED_TOKENS = 512
"""Of one canvas's candidates in one pass: each attends, in vain, to the places of all the others."""


@runtime_checkable
class CachingPredictor(MaskPredictor, Protocol):
    """A mask predictor whose keys and values can be kept from pass to pass."""

    @property
    def folder(self) -> Path | None:
        """Of the checkpoint; None for a model made in memory."""
        ...

    @property
    def shift(self) -> int:
        """How many places before a token its logits are read."""
        ...

    def encode(self, ids: Tensor, positions: Tensor, visible: Tensor | None, memory: KeyValues) -> Tensor:
        """Hidden states of some places, which attend to one another and to what `memory` holds.

        Args:
            ids: Token ids, [rows, places].
            positions: Of the tokens in their sequences, [rows, places]; only differences between them matter.
            visible: bool, what may be attended to, [rows, 1, places or 1, places in memory + places]; None
                for everything.
            memory: Takes the keys and values of these places in.

        Returns:
            [rows, places, width].
        """
        ...

    def score(self, hidden: Tensor) -> Tensor:
        """float32 logits of hidden states, [..., vocabulary]."""
        ...


class Passes(Protocol):
    """The forward passes of one batch, from its first step to its last."""

    def logits(self, ids: Tensor, attention_mask: Tensor, wanted: Tensor, rows: Sequence[int]) -> Tensor:
        """As `MaskPredictor.logits`; `rows` are the numbers that these rows had at the first step."""
        ...


def choose_mode(model: MaskPredictor, mode: CacheMode) -> CacheMode:
    """The mode that a model is run in; "auto" is "window" where the model can, else "exact".

    Raises:
        SettingsError: If the model keeps no keys and values, and is asked to.
    """
    if isinstance(model, CachingPredictor):
        return "window" if mode == "auto" else mode
    if mode not in ("auto", "exact"):
        raise SettingsError(
            f"cache must be 'auto' or 'exact' for {model.name}, whose keys and values cannot be kept; "
            f"got {mode!r}."
        )
    return "exact"


class Contexts:
    """Encodes few-shot contexts for mode *context*, and keeps the last one."""

    def __init__(self) -> None:
        self._last: tuple[tuple[int, ...], KeyValues] | None = None

    def encoded(self, model: CachingPredictor, ids: tuple[int, ...]) -> KeyValues:
        """The context's keys and values, at positions 0, 1, ...; a canvas lies before them."""
        last = self._last
        if last is None or last[0] != ids:
            memory = KeyValues(1, len(ids))
            row = torch.tensor([ids], device=model.device)
            model.encode(row, torch.arange(len(ids), device=model.device)[None], None, memory)
            memory.start = len(ids)
            last = self._last = (ids, memory)
        return last[1]


class FullPasses:
    """Mode *exact*. Equal rows, as the candidates of a canvas are at first, are computed once.

    Args:
        model: The mask predictor.
    """

    def __init__(self, model: MaskPredictor) -> None:
        self._model = model

    def logits(self, ids: Tensor, attention_mask: Tensor, wanted: Tensor, rows: Sequence[int]) -> Tensor:
        """One full pass over what differs, in parts of bounded size."""
        distinct, group = _distinct(ids, attention_mask, wanted)
        at_once = max(1, max_batch_tokens(self._model.device) // ids.shape[1])
        logits = torch.cat(
            [
                self._model.logits(ids[part], attention_mask[part], wanted[part])
                for part in distinct.split(at_once)
            ]
        )
        return _repeat(logits, wanted[distinct], group)


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
        distinct, group = _distinct(ids, attention_mask, wanted)
        self._canvas = torch.tensor(group, device=ids.device)
        numbers = defaultdict(itertools.count)
        self._candidate = torch.tensor([next(numbers[canvas]) for canvas in group], device=ids.device)
        ids, given, wanted = ids[distinct], attention_mask[distinct], wanted[distinct]
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
        return _repeat(logits, wanted, group)

    def _find_places(self, masked: Tensor, positions: Tensor) -> None:
        """What later passes compute: places that are masked, where their logits are read, and neighbours."""
        shift = self._model.shift
        reach = 0 if self._context else NEIGHBOURS  # beside a blind context it costs much and gained nothing
        near = max_pool1d(masked.float()[:, None], 2 * reach + 1, stride=1, padding=reach)[:, 0] > 0
        self._computed = masked | pad(masked[:, shift:], (0, shift)) | (near & (positions < 0))
        self._rank = self._computed.cumsum(1) - 1
        width = int(self._computed.sum(1).max())
        self._places = (~self._computed).int().argsort(dim=1, stable=True)[:, :width]
        self._in_use = self._computed.gather(1, self._places)
        self._positions = positions.gather(1, self._places)

    def _new_memory(self, num_rows: int, length: int) -> KeyValues:
        width = self._places.shape[1]
        self._num_candidates = int(self._candidate.max()) + 1
        self._at_once = min(self._num_candidates, max(1, MAX_PACKED_TOKENS // width))
        before = self._context.start if self._context else 0
        return KeyValues(num_rows, before + length + self._at_once * width, self._context)

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


def _own_places(in_use: Tensor, num_candidates: int) -> Tensor:
    """Who may attend to whom among packed candidates: [canvases, candidates * places, the same].

    A place that is not in use sees itself, since a softmax over nothing is no number.
    """
    width = in_use.shape[1]
    candidate = torch.arange(num_candidates, device=in_use.device).repeat_interleave(width)
    same = candidate[:, None] == candidate
    itself = torch.eye(len(candidate), dtype=torch.bool, device=in_use.device)
    return same & in_use.repeat(1, num_candidates)[:, None] | itself


def _distinct(ids: Tensor, attention_mask: Tensor, wanted: Tensor) -> tuple[Tensor, list[int]]:
    """The first of each set of equal rows, and for every row the number of its set."""
    content = torch.where(attention_mask, 2 * ids + wanted, -1).cpu().numpy()
    first: dict[bytes, int] = {}
    like = [first.setdefault(row.tobytes(), number) for number, row in enumerate(content)]
    order = {row: number for number, row in enumerate(first.values())}
    return torch.tensor(list(order), device=ids.device), [order[row] for row in like]


def _repeat(logits: Tensor, wanted: Tensor, group: Sequence[int]) -> Tensor:
    """Logits of distinct rows as those of all rows."""
    if len(wanted) == len(group):
        return logits
    each = logits.split(wanted.sum(1).tolist())
    return torch.cat([each[number] for number in group])
