"""Runs that stand for those of other candidates."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from dspy_diffusion_infill.search.called import Called
from dspy_diffusion_infill.search.kept_runs import Place, Prompt
from dspy_diffusion_infill.search.running import Run


class Alike:
    """Finds runs that another candidate would repeat word for word.

    A candidate whose text differs only in predictors that a run did not call would have called the same ones,
    with the same prompts. What a predictor's text does that no run has ever called is not known: it may be
    read otherwise. So only runs of candidates that differ in others stand for one another.

    Args:
        num_predictors: Of the program; a run that called them all stands for no other.
    """

    def __init__(self, num_predictors: int) -> None:
        self._num_predictors = num_predictors
        self.lost = threading.Event()
        """Set if a call could not be told from those of other runs: no run stands for another then."""
        self._ever, self._version = set[str](), 0
        self._runs: dict[int, dict[Called, dict[Prompt, tuple[Prompt, Run]]]] = {}
        self._looked: dict[Prompt, int] = {}

    def add(self, place: Place, run: Run) -> None:
        """Remember a run, if it may stand for others."""
        if run.called is None:
            return
        self._ever |= run.called
        if len(run.called) < self._num_predictors:
            prompt, example = place
            same_calls = self._runs.setdefault(example, {}).setdefault(run.called, {})
            same_calls.setdefault(_part(prompt, run.called), (prompt, run))
            self._version += 1

    def complete(self, prompt: Prompt, runs: dict[int, Run], examples: Iterable[int]) -> None:
        """Add the runs that a candidate would repeat, on examples that it was not run on."""
        if self.lost.is_set() or self._looked.get(prompt, 0) == self._version:
            return
        self._looked[prompt] = self._version
        for example in examples:
            if example not in runs and (run := self._find(prompt, example)) is not None:
                runs[example] = run

    def _find(self, prompt: Prompt, example: int) -> Run | None:
        for called, runs in self._runs.get(example, {}).items():
            other, run = runs.get(_part(prompt, called), (None, None))
            if other is not None and {name for name, _ in {*prompt} - {*other}} <= self._ever:
                return run
        return None


def _part(prompt: Prompt, called: Called) -> Prompt:
    return tuple(text for text in prompt if text[0] in called)
