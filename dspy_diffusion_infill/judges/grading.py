"""Grade many records with a judge: in threads, outages waited out, nothing asked twice."""

from __future__ import annotations

from collections.abc import Sequence

import dspy

from dspy_diffusion_infill.errors import EvaluationError
from dspy_diffusion_infill.judges.prometheus import Judge
from dspy_diffusion_infill.prompts.program import instructions_of
from dspy_diffusion_infill.search.budget import Budget, Meter
from dspy_diffusion_infill.search.evaluation import Evaluator
from dspy_diffusion_infill.search.journal import Journal
from dspy_diffusion_infill.search.metrics import Metric


def grade(
    judge: Judge,
    examples: Sequence[dspy.Example],
    *,
    role: str,
    num_threads: int,
    journal: Journal | None = None,
) -> list[float | None]:
    """The judge's score of each record, in order; None where it gave no verdict.

    Args:
        judge: Not modified.
        examples: With the judge's inputs. Not modified.
        role: Names the records in errors and in the journal.
        num_threads: Records at a time.
        journal: Gets every score, and gives those of an earlier process.

    Raises:
        EvaluationError: If the judge failed for a reason that says nothing about a record; with a journal,
            another call goes on from there.
    """
    if not examples:
        return []
    evaluator = Evaluator(
        judge,
        metric=Metric(_own_score),
        examples=examples,
        role=role,
        meter=Meter(Budget(metric_calls=len(examples))),
        num_threads=num_threads,
        max_unscored=0,  # a reply without a verdict is the judge's failure here, not the metric's
        journal=journal,
    )
    candidate = instructions_of(judge)
    if not evaluator.run((candidate, number) for number in range(len(examples))):
        raise EvaluationError(f"The judge stayed away: {evaluator.outage}")
    runs = evaluator.runs(candidate)
    return [runs[number].score for number in range(len(examples))]


def _own_score(example: dspy.Example, graded: dspy.Prediction) -> float:
    return graded.score
