"""The search: window by window, fillings compete with what is there."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import dspy

from dspy_diffusion_infill.errors import CanvasError, InfillError, TooManyUnscoredError
from dspy_diffusion_infill.prompts.candidates import Candidate, key
from dspy_diffusion_infill.prompts.program import attach_reports, with_instructions
from dspy_diffusion_infill.prompts.windows import Masking
from dspy_diffusion_infill.search import failures
from dspy_diffusion_infill.search.counting import Stop
from dspy_diffusion_infill.search.duels import Duel, combined, compatible
from dspy_diffusion_infill.search.edits import Edit
from dspy_diffusion_infill.search.events import EditAccepted, RunEnded, StartScored
from dspy_diffusion_infill.search.idle import warn_if_idle
from dspy_diffusion_infill.search.perfection import Perfection
from dspy_diffusion_infill.search.proposals import Proposal, Proposer
from dspy_diffusion_infill.search.results import Trial, candidate_programs, trial_logs
from dspy_diffusion_infill.search.reverting import attach_edits
from dspy_diffusion_infill.search.review import Review, Reviewer
from dspy_diffusion_infill.search.rounds import one_pass
from dspy_diffusion_infill.search.saying import logger
from dspy_diffusion_infill.search.selection import TOLERANCE, select
from dspy_diffusion_infill.search.session import Session
from dspy_diffusion_infill.search.start import INTERRUPTED, STOPPED, Start
from dspy_diffusion_infill.search.summary import summary

PATIENCE = 2
"""Passes without any gain, one after the other, that end a search."""


class Search:
    """Improve one program's instructions until no window helps or the budget is spent.

    Args:
        start: The instructions at first, and what scores candidates.
        proposer: Says which windows there are, and fills them.
        session: Which filling wins, and what was spent.
        masking: In which order windows are decided, and how often.
        review: Who has a say in what is let in.
    """

    def __init__(
        self, start: Start, proposer: Proposer, session: Session, masking: Masking, review: Review
    ) -> None:
        self.best = self._start = start.instructions
        self._program, self._early_end = start.program, start.ended
        self.edits: list[Edit] = []
        """The accepted windows that led from the start to the best."""
        self._trials, self._refused = list[Trial](), set[object]()
        self._reviewer = Reviewer(review, session.journal) if review else None
        self._tried: dict[object, Candidate] = {key(self._start): self._start}
        self._board, self._proposer = start.board, proposer
        self._selection, self._meter, self._masking = session.selection, session.meter, masking
        self._perfection = Perfection(session, self._board)
        self._tell = session.tell

    def run(self) -> str:
        """Search; Ctrl-C, an outage, too many unscored examples, or a prompt grown too long end it.

        `best` is at every moment the best found so far. Failures and unscored examples may come to weigh more
        than when an edit was accepted; if the best is worse than the start by that, the start is the best.

        Returns:
            Why the search ended.

        Raises:
            Exception: What no later try can mend, with the best so far in its notes.
        """
        reason = self._run()
        if self._mean(self.best) < self._mean(self._start) - TOLERANCE:
            logger.warning("By all that was seen the edits are worse than the start, which is returned.")
            self.fall_back()
        return reason

    def _run(self) -> str:
        score = self._board.mean(self.best)
        self._tell(StartScored(metric_calls=self._meter.spent, score=score))
        if self._early_end is not None:
            return self._early_end
        if score is None:
            return f"{self._finished(self.best)}, before the start was scored"
        try:
            return self._search()
        except KeyboardInterrupt:
            logger.warning("Interrupted; the best so far is returned.")
            return INTERRUPTED
        except Stop:
            return STOPPED
        except Exception as error:
            if isinstance(error, TooManyUnscoredError | CanvasError):
                logger.warning("%s The best so far is returned.", error)
                what = "prompt too long" if isinstance(error, CanvasError) else "unscored examples"
                return f"{what}: {error}"
            if failures.is_outage(error):
                return self._cut_short(error if isinstance(error, InfillError) else failures.describe(error))
            error.add_note(
                f"The best instructions so far score {self._mean(self.best):.4g}: {dict(self.best)}"
            )
            raise

    def fall_back(self) -> None:
        """Return to the start."""
        self.best, self.edits = self._start, []

    def tuned(self, run: Mapping[str, Any]) -> dspy.Module:
        """The program with the best instructions; it carries its edits, and what was tried as plain data.

        Args:
            run: What else is known of the run, for `detailed_results`.
        """
        program = with_instructions(self._program, self.best)
        ended = self._ended(run)
        self._tell(ended)
        logger.info("Edits: %d. %s", len(self.edits), ended)
        # a frozen program is refused by other optimizers, and left out of its parent's JSON
        program._compiled = False
        attach_reports(program, self._reports(run))
        attach_edits(program, self.edits)
        return program

    def _ended(self, run: Mapping[str, Any]) -> RunEnded:
        score, verdict = self._board.mean(self.best), run["confirmation"]["verdict"]
        reason = run["stop_reason"]
        return RunEnded(metric_calls=self._meter.spent, stop_reason=reason, score=score, verdict=verdict)

    def _reports(self, run: Mapping[str, Any]) -> dict[str, Any]:
        """What was tried, under the names that DSPy's optimizers use."""
        board, tried = self._board, self._tried.values()
        scored = [(candidate, mean) for candidate in tried if (mean := board.mean(candidate)) is not None]
        found = summary(self._start, self.best, self.edits, board, self._meter)
        return {
            "candidate_programs": candidate_programs(scored),
            "trial_logs": trial_logs(self._trials),
            "detailed_results": {**found, **run},
        }

    def _search(self) -> str:
        warn_if_idle(self._board, self._start, self._proposer)
        sweep = self._independent if self._masking.order == "independent" else self._successive
        idle = 0
        for number in itertools.count(1):
            before = self.best
            if (reason := sweep(number)) is not None:
                return reason
            idle = idle + 1 if self.best == before else 0
            if number == self._masking.passes:
                return f"passes: {number}"
            if self._masking.passes is None and idle == PATIENCE:
                return f"no window helped in {PATIENCE} passes"
        raise AssertionError("unreachable")

    def _successive(self, number: int) -> str | None:
        """Decide one window after the other; each sees what was accepted before."""
        for place in one_pass(self._masking, self._proposer, lambda: self.best):
            if (reason := self._finished(self.best)) is not None:
                return reason
            (proposal,) = self._proposer.propose(self.best, [place])
            duel = self._fight(self.best, proposal, number)
            self._accept(duel.winner, number, [duel], accepted=[duel] if duel.won else [])
        return None

    def _independent(self, number: int) -> str | None:
        """Decide all windows from one base, and put winners together."""
        if (reason := self._finished(self.best)) is not None:
            return reason
        base = best = self.best
        duels, accepted = list[Duel](), list[Duel]()
        places = [place for predictor in base for place in self._proposer.places(base, predictor)]
        try:
            for proposal in self._proposer.propose(base, places) if places else ():
                duels.append(self._fight(base, proposal, number))
                if self._mean(duels[-1].winner) > self._mean(best) + TOLERANCE:
                    best, accepted = duels[-1].winner, duels[-1:]
                if (reason := self._finished(best)) is not None:
                    return reason
            if (together := self._combine(base, best, duels)) != best:
                best, accepted = together, compatible(duels)
        finally:
            self._accept(best, number, duels, accepted)
        return None

    def _combine(self, base: Candidate, alone: Candidate, duels: Sequence[Duel]) -> Candidate:
        """All winners put together, if that is better than the best of them alone; else that one."""
        parts = compatible(duels)
        together = combined(base, parts)
        if len(parts) < 2 or not self._proposer.allows(base, together):
            return alone
        self._tried[key(together)] = together
        return select([together], alone, self._board, self._selection)

    def _fight(self, base: Candidate, proposal: Proposal, number: int) -> Duel:
        """Let the fillings of one window compete with what is there; the winner is reviewed."""
        spent = self._meter.spent
        self._tried |= {key(candidate): candidate for candidate in proposal.candidates}
        self._tell(proposal.filled(number, spent))
        candidates = [candidate for candidate in proposal.candidates if key(candidate) not in self._refused]
        winner = select(candidates, base, self._board, self._selection)
        gain = self._mean(winner) - self._mean(base)
        duel = Duel(base, proposal, winner, gain, self._meter.spent - spent)
        for scored in duel.scored(self._board, self._meter.spent):
            self._tell(scored)
        if duel.won and self._reviewer is not None and not self._reviewer(duel.edit(number, self._board)):
            self._refused.add(key(winner))
            return replace(duel, winner=base, gain=0.0, refused=True)
        return duel

    def _accept(self, best: Candidate, number: int, duels: Iterable[Duel], accepted: Sequence[Duel]) -> None:
        """Make a candidate the best; the edits that led to it come with it, whenever Ctrl-C may come."""
        score, spent, board = self._mean(best), self._meter.spent, self._board
        trials = [
            duel.trial(number, board, accepted=duel in accepted, score=score, spent=spent) for duel in duels
        ]
        # from right to left: the start of each is where its text stands when its turn comes
        ordered = sorted(accepted, key=lambda duel: -duel.proposal.place.window.start)
        edits = [duel.edit(number, board) for duel in ordered]
        self.best, self.edits, self._trials = best, self.edits + edits, self._trials + trials
        for edit in edits:
            logger.info("%s: %r -> %r, score %.4g", edit.predictor, edit.before, edit.after, score)
            self._tell(EditAccepted(metric_calls=spent, edit=edit, score=score))

    def _finished(self, best: Candidate) -> str | None:
        if self._board.outage is not None:
            return self._cut_short(self._board.outage)
        if (cap := self._meter.spent_cap) is not None:
            return f"budget spent ({cap})"
        return "perfect score" if self._perfection.reached(best) else None

    def _cut_short(self, outage: object) -> str:
        logger.warning("Out of reach after every try: %s The best so far is returned.", outage)
        return f"outage: {outage}"

    def _mean(self, candidate: Candidate) -> float:
        return self._board.total(candidate) / len(self._board.examples)
