"""What is in work on the model: a batch for each kind of canvas."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Sequence

import torch

from dspy_diffusion_infill.engine.cache import Contexts
from dspy_diffusion_infill.engine.continuous import Batch
from dspy_diffusion_infill.engine.model import MaskPredictor
from dspy_diffusion_infill.engine.reverse import Decoding, Filled
from dspy_diffusion_infill.serving.metrics import Metrics
from dspy_diffusion_infill.serving.work import Unit

Shape = tuple[Decoding, int, int, int]
Key = tuple[Unit, int]

KEPT_CONTEXTS = 16
"""Few-shot contexts whose keys and values are remembered, for mode *context*."""
log = logging.getLogger(__name__)


class Running:
    """Units in batches. Every method returns the units that a lack of memory threw out, to be begun anew.

    Units share a batch if they share their settings and have a like size: as many candidates, masks and
    length within a factor of two, so that padding costs less than sharing saves.

    Args:
        model: The mask predictor.
        metrics: Told what happens.
    """

    def __init__(self, model: MaskPredictor, metrics: Metrics) -> None:
        self._model, self._metrics = model, metrics
        self._contexts = Contexts(KEPT_CONTEXTS)
        self._batches: dict[Shape, Batch[Key]] = {}
        self._units: dict[Shape, list[Unit]] = {}

    @property
    def cost(self) -> float:
        """Of all units in work."""
        return sum(unit.cost for units in self._units.values() for unit in units)

    @property
    def num_rows(self) -> int:
        """Canvases in work, candidates counted one by one."""
        return sum(len(batch) for batch in self._batches.values())

    def __len__(self) -> int:
        return len(self._batches)

    def enter(self, units: Sequence[Unit]) -> list[Unit]:
        """Let units in, through their first step."""
        alike: defaultdict[Shape, list[Unit]] = defaultdict(list)
        for unit in units:
            alike[self._shape(unit)].append(unit)
        return [unit for shape, group in alike.items() for unit in self._enter(shape, group)]

    def step(self) -> list[Unit]:
        """One step of every batch."""
        return [unit for shape in list(self._batches) for unit in self._advance(shape, Batch.step)]

    def drop_cancelled(self) -> list[Unit]:
        """Take out, and return, what nobody waits for any more."""
        gone = []
        for shape, units in list(self._units.items()):
            leaving = [unit for unit in units if unit.ticket.cancelled or unit.job.done.done()]
            if not leaving:
                continue
            self._batches[shape].drop({key for unit in leaving for key in unit.unfinished})
            self._forget(shape, leaving)
            gone += leaving
        return gone

    def _shape(self, unit: Unit) -> Shape:
        ids = unit.job.tasks[unit.indices[0]].ids
        num_masked = list(ids).count(self._model.mask_token_id)
        return unit.job.decoding, len(unit.indices), num_masked.bit_length(), len(ids).bit_length()

    def _enter(self, shape: Shape, units: list[Unit]) -> list[Unit]:
        if shape not in self._batches:
            try:
                self._batches[shape] = Batch(self._model, shape[0], self._contexts)
            except ValueError as error:  # a cache mode that this model does not have
                _fail(units, error)
                return []
        self._units[shape] = [*self._units.get(shape, ()), *units]
        tasks = {key: task for unit in units for key, task in unit.unfinished.items()}
        return self._advance(shape, lambda batch: batch.join(tasks))

    def _advance(self, shape: Shape, action: Callable[[Batch[Key]], dict[Key, Filled]]) -> list[Unit]:
        """Let a batch do something, and hand out what it finished."""
        batch = self._batches[shape]
        try:
            found = action(batch)
        except torch.OutOfMemoryError:
            del self._batches[shape]
            return self._units.pop(shape)
        except Exception as error:
            log.error("a batch failed", exc_info=error)
            del self._batches[shape]
            _fail(self._units.pop(shape), error)
            return []
        self._metrics.row_passes.inc(len(batch) + len(found))
        for (unit, index), filled in found.items():
            unit.job.take(index, filled)
        self._forget(shape, [unit for unit in self._units[shape] if not unit.unfinished])
        self._tell(shape)
        return []

    def _tell(self, shape: Shape) -> None:
        """What is written so far, to those who asked to be told."""
        for unit in self._units.get(shape, ()):
            if unit.ticket.progress:
                for key in unit.unfinished:
                    unit.ticket.progress(key[1], self._batches[shape].written(key))

    def _forget(self, shape: Shape, units: Sequence[Unit]) -> None:
        self._units[shape] = [unit for unit in self._units[shape] if unit not in units]
        if not self._units[shape]:
            del self._units[shape], self._batches[shape]


def _fail(units: Sequence[Unit], error: Exception) -> None:
    for unit in units:
        unit.fail(error)
