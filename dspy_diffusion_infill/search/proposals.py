"""From a window to candidates: canvas, infill, guard."""

from __future__ import annotations

import functools
import random
import time
from collections import Counter

import dspy

from dspy_diffusion_infill.prompts.candidates import Candidate, Rejected, propose
from dspy_diffusion_infill.prompts.canvas import Infiller
from dspy_diffusion_infill.prompts.conditioning import Conditioning
from dspy_diffusion_infill.prompts.guards import Guard, word_grams
from dspy_diffusion_infill.prompts.locks import LockSetting, locked_spans
from dspy_diffusion_infill.prompts.protocols import program_locks
from dspy_diffusion_infill.prompts.render import render_window
from dspy_diffusion_infill.prompts.windows import SlidingWindow, Window
from dspy_diffusion_infill.search import failures
from dspy_diffusion_infill.search.start import Calls
from dspy_diffusion_infill.search.task import Task


class Proposer:
    """Proposes new instructions for one window at a time.

    Args:
        start: Instructions at the start of the search; what they hold is allowed to stay.
        program: Whose predictors are rendered. Not modified.
        task: Its trainset conditions; none of its examples may be copied into instructions.
        calls: By predictor, the fields of calls that condition where labels do not reach.
        infiller: Fills the windows.
        masking: Which windows there are.
        lock: What no window may touch.
        guard: What may not get in; None lets everything in.
        shots: Examples a canvas, at most.
        num_candidates: Fillings a window.
        seed: Of the fillings, and of the order of examples.
    """

    def __init__(
        self,
        start: Candidate,
        *,
        program: dspy.Module,
        task: Task,
        calls: Calls,
        infiller: Infiller,
        masking: SlidingWindow,
        lock: LockSetting,
        guard: Guard | None,
        shots: int,
        num_candidates: int,
        seed: int,
    ) -> None:
        self._predictors = dict(program.named_predictors())
        self._start, self._infiller, self._masking, self._guard = start, infiller, masking, guard
        self._conditioning = Conditioning(program, task.trainset, calls, shots=shots, seed=seed)
        self._locks = program_locks(program, lock)
        examples = [str(value) for example in task.trainset + task.valset for value in example.values()]
        self._grams = word_grams(examples, guard.copied_words) if guard else set()
        self._num_candidates, self._seed = num_candidates, seed
        self._visits: Counter[str] = Counter()

    def windows(self, candidate: Candidate, predictor: str) -> list[Window]:
        """The windows of one predictor's instructions, from left to right, clear of what is locked."""
        text = candidate[predictor]
        locked = locked_spans(text, self._locks[predictor])
        return self._masking.windows(text, self._infiller.offsets(text), locked)

    def propose(
        self, candidate: Candidate, predictor: str, window: Window
    ) -> tuple[list[Candidate], list[Rejected]]:
        """Fill one window; each call shows the infiller other examples and has a seed of its own."""
        visit = self._visits[predictor]
        self._visits[predictor] += 1
        messages = render_window(self._predictors[predictor], candidate[predictor], window)
        canvas = self._conditioning.canvas(predictor, messages, visit, self._infiller)
        seed = random.Random(f"{self._seed}/{predictor}/{visit}").getrandbits(31)
        infill = functools.partial(
            self._infiller.infill, [canvas], num_candidates=self._num_candidates, seed=seed
        )
        (fillings,) = failures.retry(infill, failures.PAUSES, time.sleep)
        return propose(candidate, predictor, window, fillings, lambda text: self._flaw(predictor, text))

    def _flaw(self, predictor: str, text: str) -> str | None:
        return self._guard.flaw(self._start[predictor], text, self._grams) if self._guard else None
