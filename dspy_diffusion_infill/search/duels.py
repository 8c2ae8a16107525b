"""One window decided: its fillings against what is there; and several windows at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace

from dspy_diffusion_infill.prompts.candidates import Candidate
from dspy_diffusion_infill.search.edits import Edit
from dspy_diffusion_infill.search.evaluation import Evaluator
from dspy_diffusion_infill.search.events import CandidateScored
from dspy_diffusion_infill.search.proposals import Proposal
from dspy_diffusion_infill.search.results import MAX_CHARS, Trial, Tried


@dataclass(frozen=True, slots=True)
class Duel:
    """A window whose fillings were scored."""

    base: Candidate
    """What was there."""
    proposal: Proposal
    winner: Candidate
    """The best filling's candidate; `base` if none was better."""
    gain: float
    """Of the winner's mean score over the base's."""
    metric_calls: int
    refused: bool = False
    """Whether there was a winner that did not pass review."""

    @property
    def won(self) -> bool:
        """Whether a filling was better than what was there."""
        return self.winner != self.base

    def filling(self, candidate: Candidate) -> str:
        """What stands in the window's place in a candidate."""
        place = self.proposal.place
        return place.window.filling_of(self.base[place.predictor], candidate[place.predictor])

    def edit(self, pass_number: int, board: Evaluator) -> Edit:
        """The winner's rewrite, measured."""
        place = self.proposal.place
        unmeasured = Edit(
            predictor=place.predictor,
            start=place.window.start,
            before=self.filling(self.base),
            after=self.filling(self.winner),
            gain=self.gain,
            interval=(self.gain, self.gain),
            moved=(),
            metric_calls=self.metric_calls,
            pass_number=pass_number,
        )
        return unmeasured.measured(board.gain(self.base, self.winner))

    def trial(self, pass_number: int, board: Evaluator, *, accepted: bool, score: float, spent: int) -> Trial:
        """The duel for the logs.

        Args:
            pass_number: From 1.
            board: Where it was fought.
            accepted: Whether the window was rewritten.
            score: The incumbent's mean after the decision.
            spent: Metric calls of the run up to the decision.
        """
        place = self.proposal.place
        rejected = (replace(refused, text=refused.text[:MAX_CHARS]) for refused in self.proposal.rejected)
        return Trial(
            pass_number=pass_number,
            predictor=place.predictor,
            start=place.window.start,
            before=self.filling(self.base),
            after=self.filling(self.winner) if accepted else None,
            num_candidates=len(self.proposal.candidates),
            candidates=tuple(self._tried(candidate, board) for candidate in self.proposal.candidates),
            rejected=tuple(rejected),
            refused=self.refused,
            score=score,
            gain=self.gain if accepted else 0.0,
            metric_calls=self.metric_calls,
            spent=spent,
        )

    def scored(self, board: Evaluator, spent: int) -> list[CandidateScored]:
        """What to tell of the fillings that competed."""
        found = [self._tried(candidate, board) for candidate in self.proposal.candidates]
        name = self.proposal.place.predictor
        return [CandidateScored(metric_calls=spent, predictor=name, **asdict(tried)) for tried in found]

    def _tried(self, candidate: Candidate, board: Evaluator) -> Tried:
        text, score = self.filling(candidate)[:MAX_CHARS], board.mean(candidate, partly=True)
        return Tried(text, score, board.num_scored(candidate))


def compatible(duels: Iterable[Duel]) -> list[Duel]:
    """Winners whose windows do not overlap, chosen greedily by gain; of equal gains, the earlier one."""
    chosen: list[Duel] = []
    for duel in sorted((duel for duel in duels if duel.won), key=lambda duel: -duel.gain):
        if not any(duel.proposal.place.overlaps(other.proposal.place) for other in chosen):
            chosen.append(duel)
    return chosen


def combined(base: Candidate, duels: Iterable[Duel]) -> Candidate:
    """The base with every duel's window rewritten by its winner; windows must not overlap."""
    texts = dict(base)
    # from right to left, so that what is still to be rewritten stays where it was
    for duel in sorted(duels, key=lambda duel: -duel.proposal.place.window.start):
        place = duel.proposal.place
        texts[place.predictor] = place.window.replace(texts[place.predictor], duel.filling(duel.winner))
    return texts
