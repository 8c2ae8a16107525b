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

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from dspy_diffusion_infill.engine.keyvalues import KeyValues
from dspy_diffusion_infill.engine.model import MaskPredictor
from dspy_diffusion_infill.engine.rows import max_batch_tokens
from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.prompts.canvas import CacheMode


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

    def keep(self, rows: Sequence[int]) -> None:
        """Forget all other rows; these are numbered anew, from 0, in the order given."""
        ...

    def join(self, other: Self) -> None:
        """Take another batch's rows in, numbered after these; both have been through their first step."""
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
    """Encodes few-shot contexts for mode *context*, and keeps those last asked for.

    Args:
        num_kept: How many.
    """

    def __init__(self, num_kept: int = 1) -> None:
        self._num_kept = num_kept
        self._kept: OrderedDict[tuple[int, ...], KeyValues] = OrderedDict()

    def encoded(self, model: CachingPredictor, ids: tuple[int, ...]) -> KeyValues:
        """The context's keys and values, at positions 0, 1, ...; a canvas lies before them."""
        if ids not in self._kept:
            memory = KeyValues(1, len(ids))
            row = torch.tensor([ids], device=model.device)
            model.encode(row, torch.arange(len(ids), device=model.device)[None], None, memory)
            memory.start = len(ids)
            self._kept[ids] = memory
        self._kept.move_to_end(ids)
        while len(self._kept) > self._num_kept:
            self._kept.popitem(last=False)
        return self._kept[ids]


class FullPasses:
    """Mode *exact*. Equal rows, as the candidates of a canvas are at first, are computed once.

    Args:
        model: The mask predictor.
    """

    def __init__(self, model: MaskPredictor) -> None:
        self._model = model

    def logits(self, ids: Tensor, attention_mask: Tensor, wanted: Tensor, rows: Sequence[int]) -> Tensor:
        """One full pass over what differs, in parts of bounded size."""
        first, group = distinct(ids, attention_mask, wanted)
        at_once = max(1, max_batch_tokens(self._model.device) // ids.shape[1])
        logits = torch.cat(
            [
                self._model.logits(ids[part], attention_mask[part], wanted[part])
                for part in first.split(at_once)
            ]
        )
        return repeat(logits, wanted[first], group)

    def keep(self, rows: Sequence[int]) -> None:
        """Nothing is remembered of any row."""

    def join(self, other: FullPasses) -> None:
        """Nothing is remembered of any row."""


def distinct(ids: Tensor, attention_mask: Tensor, wanted: Tensor) -> tuple[Tensor, list[int]]:
    """The first of each set of equal rows, and for every row the number of its set."""
    content = torch.where(attention_mask, 2 * ids + wanted, -1).cpu().numpy()
    first: dict[bytes, int] = {}
    like = [first.setdefault(row.tobytes(), number) for number, row in enumerate(content)]
    order = {row: number for number, row in enumerate(first.values())}
    return torch.tensor(list(order), device=ids.device), [order[row] for row in like]


def repeat(logits: Tensor, wanted: Tensor, group: Sequence[int]) -> Tensor:
    """Logits of distinct rows as those of all rows."""
    if len(wanted) == len(group):
        return logits
    each = logits.split(wanted.sum(1).tolist())
    return torch.cat([each[number] for number in group])
