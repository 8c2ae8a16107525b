"""Where a search starts: what the base found, scored, and the calls that its canvases are conditioned on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dspy

from dspy_diffusion_infill.errors import EvaluationError
from dspy_diffusion_infill.prompts.candidates import Candidate
from dspy_diffusion_infill.prompts.conditioning import needs_traces
from dspy_diffusion_infill.prompts.program import instructions_of
from dspy_diffusion_infill.search.base import BaseResult
from dspy_diffusion_infill.search.evaluation import Evaluator
from dspy_diffusion_infill.search.session import Session

Calls = Mapping[str, Sequence[Mapping[str, Any]]]
"""Fields of calls, by predictor name."""


@dataclass(frozen=True, slots=True)
class Start:
    """A program to improve."""

    program: dspy.Module
    """What the base found, or the student."""
    instructions: Candidate
    """Where the search begins: the program's own; the student's, if these score higher."""
    board: Evaluator
    """Has the scores of the instructions, unless the budget was spent before."""
    calls: Calls
    """What predictors were given and gave back in runs that scored well, where labels do not reach."""


def find_start(found: BaseResult, session: Session, *, reuse: bool) -> Start:
    """Score what the base found, as far as it has no scores yet, and order the examples by it.

    Args:
        found: A program; its instructions are scored.
        session: The program before the base, and the examples.
        reuse: Whether the base's scores are those of this run's metric.

    Raises:
        EvaluationError: If an outage kept the student from being scored, and there is no other program to
            lose.
    """
    task = session.task
    board = session.evaluator(found.program, task.valset, "valset")
    if reuse:
        found.hand_over(board.add)
    needs_calls = session.selection.shots > 0 and needs_traces(found.program, task.trainset)
    start = _score(found, task.student, board, keep_traces=needs_calls)
    calls = _good_calls(start, found, session, board) if needs_calls else {}
    return Start(found.program, start, board, calls)


def _score(found: BaseResult, student: dspy.Module, board: Evaluator, *, keep_traces: bool) -> Candidate:
    """The best start; a base that was stopped may not have compared its best with the student: both run."""
    starts = [instructions_of(found.program), instructions_of(student)][: 1 + found.stopped]
    board.run([(start, example) for start in starts for example in board.examples], keep_traces=keep_traces)
    if board.outage is not None and not found.evaluated:
        raise EvaluationError(board.outage)
    complete = [start for start in starts if board.mean(start) is not None] or starts[:1]
    return max(complete, key=board.total)


def _good_calls(start: Candidate, found: BaseResult, session: Session, board: Evaluator) -> Calls:
    """Calls of the start on the trainset; if it was not scored there, it runs on twice the shots."""
    task = session.task
    calls = board.good_calls(start) if task.selects_on_trainset else {}
    if calls:
        return calls
    runs = session.evaluator(found.program, task.trainset[: 2 * session.selection.shots], "trainset")
    runs.run([(start, example) for example in runs.examples], keep_traces=True)
    return runs.good_calls(start)
