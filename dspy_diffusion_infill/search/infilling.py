"""The search: window by window, fillings compete with what is there."""

from __future__ import annotations

import itertools
import logging
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dspy

from dspy_diffusion_infill.prompts.candidates import Candidate, key, propose
from dspy_diffusion_infill.prompts.canvas import Filling, Infiller
from dspy_diffusion_infill.prompts.conditioning import Conditioning
from dspy_diffusion_infill.prompts.render import render_window
from dspy_diffusion_infill.prompts.windows import SlidingWindow, Window
from dspy_diffusion_infill.search.budget import Meter
from dspy_diffusion_infill.search.evaluation import Evaluator
from dspy_diffusion_infill.search.results import Trial, candidate_programs, changes, trial_logs
from dspy_diffusion_infill.search.selection import TOLERANCE, Selection, select

logger = logging.getLogger(__name__)

PATIENCE = 2
"""Passes without any gain, one after the other, that end a search."""


class Search:
    """Improve one program's instructions until no window helps or the budget is spent.

    Args:
        program: Whose predictors are rendered. Not modified.
        start: Its instructions at first.
        board: Scores candidates of that program; has the scores of `start`.
        conditioning: Examples for the canvases.
        infiller: Fills them.
        masking: Which windows.
        selection: Which filling wins.
        meter: What was spent.
        num_candidates: Fillings a window.
        seed: Of the fillings.
    """

    def __init__(
        self,
        program: dspy.Module,
        start: Candidate,
        *,
        board: Evaluator,
        conditioning: Conditioning,
        infiller: Infiller,
        masking: SlidingWindow,
        selection: Selection,
        meter: Meter,
        num_candidates: int,
        seed: int,
    ) -> None:
        self.best = start
        self._start, self._trials = start, list[Trial]()
        self._tried: dict[object, Candidate] = {key(start): start}
        self._predictors = dict(program.named_predictors())
        self._board, self._conditioning, self._infiller = board, conditioning, infiller
        self._masking, self._selection, self._meter = masking, selection, meter
        self._num_candidates, self._seed = num_candidates, seed
        self._visits: Counter[str] = Counter()

    def run(self) -> str:
        """Search; Ctrl-C ends it. `best` is at every moment the best found so far.

        Returns:
            Why the search ended.
        """
        if self._board.mean(self.best) is None:
            return "budget spent before the start was scored"
        try:
            return self._passes()
        except KeyboardInterrupt:
            logger.warning("Interrupted; the best so far is returned.")
            return "interrupted"

    def reports(self, run: Mapping[str, Any]) -> dict[str, Any]:
        """What was tried and what came of it, as plain data, under the names that DSPy's optimizers use.

        Args:
            run: What else is known of the run, for `detailed_results`.
        """
        board, tried = self._board, self._tried.values()
        scored = [(candidate, mean) for candidate in tried if (mean := board.mean(candidate)) is not None]
        summary = {
            "instructions_before": dict(self._start),
            "instructions_after": dict(self.best),
            "changes": changes(self._start, self.best),
            "score_before": board.mean(self._start),
            "score_after": board.mean(self.best),
            "num_failures": board.num_failures,
            "unscored": dict(board.unscored),
            "metric_calls": self._meter.spent,
            "seconds": self._meter.seconds,
            **run,
        }
        return {
            "candidate_programs": candidate_programs(scored),
            "trial_logs": trial_logs(self._trials),
            "detailed_results": summary,
        }

    def _passes(self) -> str:
        idle = 0
        for number in itertools.count(1):
            gained = False
            for predictor in self._predictors:
                for window in self._windows(predictor):
                    if (reason := self._finished()) is not None:
                        return reason
                    gained |= self._infill(predictor, window, number)
            idle = 0 if gained else idle + 1
            if number == self._masking.passes:
                return f"passes: {number}"
            if self._masking.passes is None and idle == PATIENCE:
                return f"no window helped in {PATIENCE} passes"
        raise AssertionError("unreachable")

    def _finished(self) -> str | None:
        cap = self._meter.spent_cap
        if cap is not None:
            return f"budget spent ({cap})"
        perfect = self._selection.max_score * len(self._board.examples)
        return "perfect score" if self._board.total(self.best) >= perfect - TOLERANCE else None

    def _windows(self, predictor: str) -> Iterator[Window]:
        """Windows from left to right over a text that may change on the way; no more than it had at first."""
        start = -1
        for _ in self._cut(predictor):
            window = next((window for window in self._cut(predictor) if window.start > start), None)
            if window is None:
                return
            yield window
            start = window.start

    def _cut(self, predictor: str) -> list[Window]:
        text = self.best[predictor]
        return self._masking.windows(text, self._infiller.offsets(text))

    def _infill(self, predictor: str, window: Window, number: int) -> bool:
        """Let fillings of one window compete with what is there; whether one of them won."""
        before, spent = self.best, self._meter.spent
        candidates, rejected = propose(before, predictor, window, self._fillings(predictor, window))
        self._tried |= {key(candidate): candidate for candidate in candidates}
        self.best = select(candidates, before, self._board, self._selection)
        old, new = before[predictor], self.best[predictor]
        trial = Trial(
            pass_number=number,
            predictor=predictor,
            start=window.start,
            before=old[window.start : window.end],
            after=None if old == new else new[window.start : len(new) - (len(old) - window.end)],
            num_candidates=len(candidates),
            rejected=tuple(rejected),
            score=self._mean(self.best),
            gain=self._mean(self.best) - self._mean(before),
            metric_calls=self._meter.spent - spent,
        )
        self._trials.append(trial)
        if trial.accepted:
            logger.info("%s: %r -> %r, score %.4g", predictor, trial.before, trial.after, trial.score)
        return trial.accepted

    def _fillings(self, predictor: str, window: Window) -> Sequence[Filling]:
        visit = self._visits[predictor]
        self._visits[predictor] += 1
        messages = render_window(self._predictors[predictor], self.best[predictor], window)
        canvas = self._conditioning.canvas(predictor, messages, visit, self._infiller)
        seed = random.Random(f"{self._seed}/{predictor}/{visit}").getrandbits(31)
        (fillings,) = self._infiller.infill([canvas], num_candidates=self._num_candidates, seed=seed)
        return fillings

    def _mean(self, candidate: Candidate) -> float:
        return self._board.total(candidate) / len(self._board.examples)
