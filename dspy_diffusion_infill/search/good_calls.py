"""What predictors were given and gave back in runs that did well."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from dspy_diffusion_infill.prompts.candidates import Candidate
from dspy_diffusion_infill.search.evaluation import Evaluator


def good_calls(
    board: Evaluator, candidate: Candidate, *, by_score: bool = True
) -> dict[str, list[dict[str, Any]]]:
    """What each predictor was given and gave back in a candidate's good runs, by predictor.

    Args:
        board: Has the runs, with their traces.
        candidate: Whose runs.
        by_score: Whether a run did well if it scored at least the candidate's mean, and more than the lowest
            score there is; else, if it did not fail.
    """
    scores = board.scores(candidate)
    bar = fmean(scores.values()) if scores else 0.0
    calls: dict[str, list[dict[str, Any]]] = {}
    for run in board.runs(candidate).values():
        if run.score is None or (by_score and not bar <= run.score > board.seen.lowest):
            continue
        for step in run.trace or ():
            calls.setdefault(step.predictor, []).append({**step.inputs, **step.outputs})
    return calls
