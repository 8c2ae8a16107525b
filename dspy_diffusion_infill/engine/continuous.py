"""Continuous batching: tasks of one decoding are denoised together; they join and leave between steps."""

from __future__ import annotations

from collections.abc import Container, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Generic, TypeVar

from dspy_diffusion_infill.engine.cache import Contexts, choose_mode
from dspy_diffusion_infill.engine.denoise import plan, start_passes, with_context, without
from dspy_diffusion_infill.engine.model import MaskPredictor
from dspy_diffusion_infill.engine.reverse import Decoding, Filled, Rows, Task

Key = TypeVar("Key", bound=Hashable)
_Member = tuple[Key, tuple[int, ...]]


class Batch(Generic[Key]):
    """Tasks that share every pass but their first.

    A task gets the noise that `denoise` gives it, so that it is filled with the same tokens in any company,
    up to rounding: sums of floats depend on the shape of a batch.

    Args:
        model: The mask predictor.
        decoding: Of every task.
        contexts: What is remembered of few-shot contexts.

    Raises:
        SettingsError: If the model cannot be run in the cache mode that is asked for.

    Example:
        >>> import torch
        >>> from dspy_diffusion_infill.engine.model import ToyModel
        >>> from dspy_diffusion_infill.prompts.canvas import Denoising
        >>> toy = ToyModel(answer=torch.tensor([5, 6, 7]), vocab_size=9, mask_token_id=8)
        >>> batch = Batch(toy, Decoding(denoising=Denoising(temperature=0.0)), Contexts())
        >>> batch.join({"two": Task([5, 8, 8], seed=0)}), batch.join({"one": Task([8], seed=1)})["one"].ids
        ({}, [5])
        >>> batch.step()["two"].ids
        [5, 6, 7]
    """

    def __init__(self, model: MaskPredictor, decoding: Decoding, contexts: Contexts) -> None:
        self._model, self._decoding, self._contexts = model, decoding, contexts
        mode = choose_mode(model, decoding.denoising.cache)
        self._how = replace(decoding.denoising, cache=mode)
        self._rows: Rows | None = None
        self._members: list[_Member] = []

    def __len__(self) -> int:
        """Rows that are not finished."""
        return len(self._rows.task) if self._rows else 0

    def join(self, tasks: Mapping[Key, Task]) -> dict[Key, Filled]:
        """Take tasks in, and their first step with them; returns those that it finished.

        All tasks of one canvas should join at once: they then share its first pass, and its memory.
        """
        keys, found = list(tasks), {}
        for context, members in plan(list(tasks.values()), self._model.device, self._how.cache):
            passes = start_passes(self._model, self._how, self._contexts, context)
            cut = [without(tasks[keys[index]], context) for index in members]
            rows = Rows(self._model, passes, cut, self._decoding)
            found |= self._take_in(rows, [(keys[index], context) for index in members])
        return found

    def step(self) -> dict[Key, Filled]:
        """One pass over all rows; returns those that it finished."""
        if not self._rows:
            return {}
        self._rows.step()
        found = _finished(self._rows, self._members)
        self._tidy()
        return found

    def drop(self, keys: Container[Key]) -> None:
        """Forget tasks, finished or not."""
        if self._rows:
            self._rows.drop({number for number, (key, _) in enumerate(self._members) if key in keys})
            self._tidy()

    def written(self, key: Key) -> Sequence[int]:
        """The tokens of an unfinished task before its first mask token: they will not change."""
        assert self._rows
        row = next(row for row, task in enumerate(self._rows.task) if self._members[task][0] == key)
        ids, masked = self._rows.ids[row], self._rows.masked[row]
        return ids[: int(masked.int().argmax())].tolist()

    def _take_in(self, rows: Rows, members: list[_Member]) -> dict[Key, Filled]:
        rows.step()
        found = _finished(rows, members)
        if rows.task:
            members = [members[number] for number in rows.compact()]
            if self._rows:
                self._compact()
                self._rows.join(rows)
                self._members += members
            else:
                self._rows, self._members = rows, members
        return found

    def _tidy(self) -> None:
        """Forget rows that are gone, once they are half of all: until then they are computed for nothing."""
        if not self:
            self._rows, self._members = None, []
        elif 2 * len(self) <= len(self._members):
            self._compact()

    def _compact(self) -> None:
        assert self._rows
        self._members = [self._members[number] for number in self._rows.compact()]


def _finished(rows: Rows, members: Sequence[_Member[Key]]) -> dict[Key, Filled]:
    return {
        members[number][0]: with_context(filled, members[number][1])
        for number, filled in rows.take_finished()
    }
