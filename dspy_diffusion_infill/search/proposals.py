"""From a window to candidates: canvas, infill, guard."""

from __future__ import annotations

import functools
import random
import time
from collections import Counter

from dspy_diffusion_infill.prompts.candidates import Candidate, Rejected, propose
from dspy_diffusion_infill.prompts.conditioning import Conditioning
from dspy_diffusion_infill.prompts.guards import Guard, word_grams
from dspy_diffusion_infill.prompts.locks import LockSetting, locked_spans
from dspy_diffusion_infill.prompts.protocols import program_locks
from dspy_diffusion_infill.prompts.render import render_window
from dspy_diffusion_infill.prompts.windows import SlidingWindow, Window
from dspy_diffusion_infill.search import failures
from dspy_diffusion_infill.search.session import Session
from dspy_diffusion_infill.search.start import Start


class Proposer:
    """Proposes new instructions for one window at a time.

    Args:
        start: Whose predictors are rendered; what its instructions hold is allowed to stay; its calls
            condition where labels do not reach. Not modified.
        session: Its trainset conditions; its infiller fills; none of its examples may be copied into
            instructions.
        masking: Which windows there are.
        lock: What no window may touch.
        guard: What may not get in; None lets everything in.
        num_candidates: Fillings a window.
        seed: Of the fillings, and of the order of examples.
    """

    def __init__(
        self,
        start: Start,
        session: Session,
        *,
        masking: SlidingWindow,
        lock: LockSetting,
        guard: Guard | None,
        num_candidates: int,
        seed: int,
    ) -> None:
        self._predictors = dict(start.program.named_predictors())
        self._first, self._infiller, self._masking = start.instructions, session.infiller, masking
        task, shots = session.task, session.selection.shots
        self._conditioning = Conditioning(start.program, task.trainset, start.calls, shots=shots, seed=seed)
        self._locks, self._guard = program_locks(start.program, lock), guard
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
        return self._guard.flaw(self._first[predictor], text, self._grams) if self._guard else None
