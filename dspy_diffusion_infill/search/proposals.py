"""From a window to candidates: canvas, infill, guard."""

from __future__ import annotations

import functools
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence

import dspy

from dspy_diffusion_infill.prompts.candidates import Candidate, Rejected, propose
from dspy_diffusion_infill.prompts.canvas import Infiller
from dspy_diffusion_infill.prompts.conditioning import Conditioning
from dspy_diffusion_infill.prompts.guards import Guard, word_grams
from dspy_diffusion_infill.prompts.locks import Lock, locked_spans
from dspy_diffusion_infill.prompts.render import render_window
from dspy_diffusion_infill.prompts.windows import SlidingWindow, Window
from dspy_diffusion_infill.search import failures


class Proposer:
    """Proposes new instructions for one window at a time.

    Args:
        program: Whose predictors are rendered. Not modified.
        start: Instructions at the start of the search; what they hold is allowed to stay.
        infiller: Fills the windows.
        conditioning: Examples for the canvases.
        masking: Which windows there are.
        locks: What no window may touch, by predictor name.
        guard: What may not get in; None lets everything in.
        examples: Texts that a guard keeps from being copied.
        num_candidates: Fillings a window.
        seed: Of the fillings.
    """

    def __init__(
        self,
        program: dspy.Module,
        start: Candidate,
        *,
        infiller: Infiller,
        conditioning: Conditioning,
        masking: SlidingWindow,
        locks: Mapping[str, Sequence[Lock]],
        guard: Guard | None,
        examples: Sequence[str],
        num_candidates: int,
        seed: int,
    ) -> None:
        self._predictors = dict(program.named_predictors())
        self._start, self._infiller, self._conditioning = start, infiller, conditioning
        self._masking, self._locks, self._guard = masking, locks, guard
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
