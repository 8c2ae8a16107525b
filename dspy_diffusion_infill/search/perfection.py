"""Whether a score is the best there is, so that a search may end."""

from __future__ import annotations

import contextlib

import dspy

from dspy_diffusion_infill.prompts.candidates import Candidate
from dspy_diffusion_infill.search.evaluation import Evaluator
from dspy_diffusion_infill.search.selection import TOLERANCE
from dspy_diffusion_infill.search.session import Session


class Perfection:
    """Says when nothing can be better, as far as `max_score` is what it should be.

    A metric from 1 to 5 gives a program that is always wrong what one from 0 to 1 gives a perfect one. So
    where every score was `max_score`, the metric says first, without a run, what reference outputs are worth.

    Args:
        session: The metric, its highest score, and examples.
        board: The scores so far.
    """

    def __init__(self, session: Session, board: Evaluator) -> None:
        self._session, self._board = session, board
        self._asked = session.selection.set_metric is not None

    def reached(self, best: Candidate) -> bool:
        """Whether no score can be higher than this candidate's."""
        board, selection = self._board, self._session.selection
        missing = selection.max_score * len(board.examples) - board.total(best)
        if abs(missing) > TOLERANCE:
            return False
        if board.seen.are_one and not self._asked:
            self._ask()
        return selection.set_metric is not None or board.seen.highest <= selection.max_score

    def _ask(self) -> None:
        """Score the reference outputs of one example, if the metric takes them for a prediction."""
        self._asked = True
        example = self._session.task.valset[0]
        with contextlib.suppress(Exception):
            references = dspy.Prediction(**example.labels().toDict())
            self._board.seen.add(self._session.metric(example, references, where="references").score)
