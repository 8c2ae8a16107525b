"""The search: window by window, fillings compete with what is there."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from dspy_diffusion_infill.errors import InfillError, InfillerUnavailableError
from dspy_diffusion_infill.prompts.candidates import Candidate, key
from dspy_diffusion_infill.prompts.windows import Window
from dspy_diffusion_infill.search.proposals import Proposer
from dspy_diffusion_infill.search.results import (
    MAX_CHARS,
    Trial,
    Tried,
    candidate_programs,
    changes,
    trial_logs,
)
from dspy_diffusion_infill.search.selection import TOLERANCE, select
from dspy_diffusion_infill.search.session import Session
from dspy_diffusion_infill.search.start import Start

logger = logging.getLogger(__name__)

PATIENCE = 2
"""Passes without any gain, one after the other, that end a search."""


class Search:
    """Improve one program's instructions until no window helps or the budget is spent.

    Args:
        start: The instructions at first, and what scores candidates.
        proposer: Says which windows there are, and fills them.
        session: Which filling wins, and what was spent.
        passes: Over all windows, at most; None: while they help.
    """

    def __init__(self, start: Start, proposer: Proposer, session: Session, *, passes: int | None) -> None:
        self.best = self._start = start.instructions
        self._trials = list[Trial]()
        self._tried: dict[object, Candidate] = {key(self._start): self._start}
        self._board, self._proposer = start.board, proposer
        self._selection, self._meter, self._passes = session.selection, session.meter, passes

    def run(self) -> str:
        """Search; Ctrl-C or an outage ends it. `best` is at every moment the best found so far.

        Returns:
            Why the search ended.

        Raises:
            InfillError: What no later try can mend, with the best so far in its notes.
        """
        if self._board.mean(self.best) is None:
            return f"{self._finished()}, before the start was scored"
        try:
            return self._search()
        except KeyboardInterrupt:
            logger.warning("Interrupted; the best so far is returned.")
            return "interrupted"
        except InfillerUnavailableError as error:
            return self._cut_short(error)
        except InfillError as error:
            error.add_note(
                f"The best instructions so far score {self._mean(self.best):.4g}: {dict(self.best)}"
            )
            raise

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
            "resumed_calls": board.num_resumed,
            "tokens": self._meter.tokens,
            "usd": self._meter.usd if self._meter.budget.usd is not None else None,
            "seconds": self._meter.seconds,
            **run,
        }
        return {
            "candidate_programs": candidate_programs(scored),
            "trial_logs": trial_logs(self._trials),
            "detailed_results": summary,
        }

    def _search(self) -> str:
        idle = 0
        for number in itertools.count(1):
            gained = False
            for predictor in self._start:
                for window in self._windows(predictor):
                    if (reason := self._finished()) is not None:
                        return reason
                    gained |= self._infill(predictor, window, number)
            idle = 0 if gained else idle + 1
            if number == self._passes:
                return f"passes: {number}"
            if self._passes is None and idle == PATIENCE:
                return f"no window helped in {PATIENCE} passes"
        raise AssertionError("unreachable")

    def _finished(self) -> str | None:
        if self._board.outage is not None:
            return self._cut_short(self._board.outage)
        if (cap := self._meter.spent_cap) is not None:
            return f"budget spent ({cap})"
        perfect = self._selection.max_score * len(self._board.examples)
        return "perfect score" if self._board.total(self.best) >= perfect - TOLERANCE else None

    def _cut_short(self, outage: object) -> str:
        logger.warning("Out of reach after every try: %s The best so far is returned.", outage)
        return f"outage: {outage}"

    def _windows(self, predictor: str) -> Iterator[Window]:
        """Windows from left to right over a text that may change on the way; no more than it had at first."""
        start = -1
        for _ in self._proposer.windows(self.best, predictor):
            windows = self._proposer.windows(self.best, predictor)
            window = next((window for window in windows if window.start > start), None)
            if window is None:
                return
            yield window
            start = window.start

    def _infill(self, predictor: str, window: Window, number: int) -> bool:
        """Let fillings of one window compete with what is there; whether one of them won."""
        before, spent = self.best, self._meter.spent
        candidates, rejected = self._proposer.propose(before, predictor, window)
        self._tried |= {key(candidate): candidate for candidate in candidates}
        self.best = select(candidates, before, self._board, self._selection)

        def filling(candidate: Candidate) -> str:
            return window.filling_of(before[predictor], candidate[predictor])

        accepted = self.best[predictor] != before[predictor]
        trial = Trial(
            pass_number=number,
            predictor=predictor,
            start=window.start,
            before=filling(before),
            after=filling(self.best) if accepted else None,
            num_candidates=len(candidates),
            candidates=tuple(self._tried_as(filling(candidate), candidate) for candidate in candidates),
            rejected=tuple(replace(refused, text=refused.text[:MAX_CHARS]) for refused in rejected),
            score=self._mean(self.best),
            gain=self._mean(self.best) - self._mean(before),
            metric_calls=self._meter.spent - spent,
            spent=self._meter.spent,
        )
        self._trials.append(trial)
        if accepted:
            logger.info("%s: %r -> %r, score %.4g", predictor, trial.before, trial.after, trial.score)
        return accepted

    def _tried_as(self, text: str, candidate: Candidate) -> Tried:
        num_scored = self._board.num_scored(candidate)
        score = self._board.total(candidate) / num_scored if num_scored else None
        return Tried(text[:MAX_CHARS], score, num_scored)

    def _mean(self, candidate: Candidate) -> float:
        return self._board.total(candidate) / len(self._board.examples)
