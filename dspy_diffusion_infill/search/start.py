"""Where a search starts: what the base found, scored, and the calls that its canvases are conditioned on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dspy_diffusion_infill.errors import EvaluationError
from dspy_diffusion_infill.prompts.candidates import Candidate
from dspy_diffusion_infill.prompts.conditioning import needs_traces
from dspy_diffusion_infill.prompts.program import instructions_of
from dspy_diffusion_infill.search.base import BaseResult
from dspy_diffusion_infill.search.evaluation import Evaluator
from dspy_diffusion_infill.search.task import Task

Calls = Mapping[str, Sequence[Mapping[str, Any]]]
"""Fields of calls, by predictor name."""


def score_start(found: BaseResult, task: Task, board: Evaluator, *, shots: int) -> Candidate:
    """Score what the base found, as far as it has no scores yet, and order the examples by it.

    A base that was stopped may not have compared its best with the student: both are scored then.

    Args:
        found: A program; its instructions are scored.
        task: The program before the base, and the examples.
        board: Runs the programs.
        shots: Examples a canvas; calls are kept where labels do not reach.

    Returns:
        The instructions to start from.

    Raises:
        EvaluationError: If an outage kept the student from being scored, and there is no other program to
            lose.
    """
    starts = [instructions_of(found.program), instructions_of(task.student)][: 1 + found.stopped]
    pairs = [(start, example) for start in starts for example in board.examples]
    board.run(pairs, keep_traces=_needs_calls(found, task, shots))
    if board.outage is not None and not found.evaluated:
        raise EvaluationError(board.outage)
    complete = [start for start in starts if board.mean(start) is not None] or starts[:1]
    start = max(complete, key=board.total)
    board.put_hard_examples_first(start)
    return start


def conditioning_calls(
    start: Candidate,
    found: BaseResult,
    task: Task,
    board: Evaluator,
    evaluator: Callable[..., Evaluator],
    *,
    shots: int,
) -> Calls:
    """Calls from runs that scored well, for predictors that labels do not reach.

    The runs that scored the start are used where they were on the trainset; else the start runs on twice as
    many training examples as a canvas shows.
    """
    if not _needs_calls(found, task, shots):
        return {}
    calls = board.good_calls(start) if task.selects_on_trainset else {}
    if calls:
        return calls
    runs = evaluator(found.program, examples=task.trainset[: 2 * shots], role="trainset")
    runs.run([(start, example) for example in runs.examples], keep_traces=True)
    return runs.good_calls(start)


def _needs_calls(found: BaseResult, task: Task, shots: int) -> bool:
    return shots > 0 and needs_traces(found.program, task.trainset)
