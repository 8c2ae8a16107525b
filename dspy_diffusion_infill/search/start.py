"""Where a search starts: what the base found, scored, and the calls that its canvases are conditioned on."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import dspy
from dspy.teleprompt import Teleprompter

from dspy_diffusion_infill.errors import EvaluationError
from dspy_diffusion_infill.prompts.candidates import Candidate
from dspy_diffusion_infill.prompts.conditioning import needs_traces
from dspy_diffusion_infill.prompts.locks import LockSetting
from dspy_diffusion_infill.prompts.program import copy_program, instructions_of
from dspy_diffusion_infill.prompts.protocols import rewritten_lock
from dspy_diffusion_infill.search.base import BaseResult
from dspy_diffusion_infill.search.counting import Stop, uses_only
from dspy_diffusion_infill.search.evaluation import Evaluator
from dspy_diffusion_infill.search.good_calls import good_calls
from dspy_diffusion_infill.search.harvest import is_rewrite
from dspy_diffusion_infill.search.running import NO_PREDICTION
from dspy_diffusion_infill.search.session import Session

logger = logging.getLogger(__name__)

Calls = Mapping[str, Sequence[Mapping[str, Any]]]
"""Fields of calls, by predictor name."""


INTERRUPTED = "interrupted"
"""Why a search ended that the user ended."""
STOPPED = "stopped by the optimizer that it is the base of"
"""Why a search ended whose metric may be called no more."""


ANSWERED = ("AdapterParseError", "RuntimeError", NO_PREDICTION)
"""How failures begin that another prompt may mend: there was an answer, but it could not be read."""


@dataclass(frozen=True, slots=True)
class Start:
    """A program to improve."""

    program: dspy.Module
    """What the base found; the student, if this scores higher."""
    instructions: Candidate
    """Its own: where the search begins."""
    board: Evaluator
    """Has the scores of the instructions, unless the budget was spent before."""
    calls: Calls
    """What predictors were given and gave back in runs that scored well, where labels do not reach."""
    student_score: float | None = None
    """Of the program before the base; None where the budget did not last for it."""
    ended: str | None = None
    """Why there is no more to search, if so."""


def find_start(found: BaseResult, session: Session, *, base: Teleprompter | None, lock: LockSetting) -> Start:
    """Score what the base found, and the student, as far as they have no scores yet; the better one it is.

    Args:
        found: A program; where it is as good as the student, it is the start.
        session: The program before the base, and the examples.
        base: That found it; its scores are taken over, if they are those of this run's metric.
        lock: What the user locked; a program without it is no start.

    Raises:
        EvaluationError: If no request is answered on any example, or an outage kept the student from being
            scored, and there is no other program to lose.
    """
    student = session.task.student
    if (lost := rewritten_lock(student, found.program, lock)) is not None:
        logger.warning("The base rewrote %r, which is locked; the search starts from the student.", lost)
        found = replace(found, program=copy_program(student))
    rivals = _rivals(found, session, reuse=uses_only(base, session.metric.function))
    needs_calls = session.selection.shots > 0 and needs_traces(found.program, session.task.trainset)
    if found.interrupted:
        return replace(_best(rivals), ended=INTERRUPTED)
    try:
        for rival in rivals:
            pairs = [(rival.instructions, example) for example in rival.board.examples]
            rival.board.run(pairs, keep_traces=needs_calls)
        start, before = _checked(_best(rivals), found), rivals[-1]
        start = replace(start, student_score=before.board.mean(before.instructions))
        return replace(start, calls=_good_calls(start, session)) if needs_calls else start
    except (KeyboardInterrupt, Stop) as end:
        return replace(_best(rivals), ended=INTERRUPTED if isinstance(end, KeyboardInterrupt) else STOPPED)


def _rivals(found: BaseResult, session: Session, *, reuse: bool) -> list[Start]:
    """What the base found, and the student: on one board, if they differ in their instructions alone."""
    student, rivals = session.task.student, list[Start]()
    for program in (found.program, student):
        if rivals and is_rewrite(student, found.program):
            board = rivals[0].board
        else:
            board = session.evaluator(program, session.task.valset, "valset")
            if reuse:
                found.hand_over(program, board.add)
        rivals.append(Start(program, instructions_of(program), board, {}))
    return rivals


def _best(rivals: Sequence[Start]) -> Start:
    """The one with the highest score, and of equals the one that failed less often, or came first."""
    complete = [rival for rival in rivals if rival.board.mean(rival.instructions) is not None] or rivals[:1]
    return max(complete, key=lambda one: (one.board.mean(one.instructions) or 0.0, -_num_failed(one)))


def _checked(start: Start, found: BaseResult) -> Start:
    """A start that can be improved."""
    board = start.board
    if board.outage is not None and not found.evaluated:
        raise EvaluationError(board.outage)
    failed = [run.failure for run in board.runs(start.instructions).values() if run.failure]
    if not failed or len(failed) < len(board.examples):
        return start
    said = f"it failed on all {len(failed)}, first so: {failed[0]}"
    if not any(failure.startswith(ANSWERED) for failure in failed):
        raise EvaluationError(f"The program must run on some of the validation examples; {said}")
    logger.warning("No answer of the program can be read yet: on the validation examples %s", said)
    return start


def _num_failed(start: Start) -> int:
    return start.board.num_failed(start.instructions)


def _good_calls(start: Start, session: Session) -> Calls:
    """Calls of the start on the trainset; if it was not scored there, it runs on twice the shots."""
    task, candidate, by_score = session.task, start.instructions, session.selection.set_metric is None
    traced = any(run.trace is not None for run in start.board.runs(candidate).values())
    if task.selects_on_trainset and traced:
        return good_calls(start.board, candidate, by_score=by_score)
    runs = session.evaluator(start.program, task.trainset[: 2 * session.selection.shots], "trainset")
    runs.run([(candidate, example) for example in runs.examples], keep_traces=True)
    return good_calls(runs, candidate, by_score=by_score)
