"""What benchmarks share once a program is tuned: it is run on what no method saw, each run journaled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dspy

from dspy_diffusion_infill.errors import EvaluationError
from dspy_diffusion_infill.prompts.program import instructions_of
from dspy_diffusion_infill.search.budget import Budget, Meter
from dspy_diffusion_infill.search.evaluation import Evaluator
from dspy_diffusion_infill.search.journal import Journal
from dspy_diffusion_infill.search.metrics import Metric
from dspy_diffusion_infill.search.running import Run


def measured_runs(
    program: dspy.Module | None,
    metric: Callable[..., Any],
    shown: Sequence[dspy.Example],
    role: str,
    threads: int,
    journal: Journal | None,
) -> list[Run]:
    """A run of the program on each example; one without a score failed. No run, if there is no program.

    Raises:
        EvaluationError: If the LM is down; run again with the same --resume folder to go on.
    """
    if program is None:
        return []
    evaluator = Evaluator(
        program,
        metric=Metric(metric),
        examples=shown,
        role=role,
        meter=Meter(Budget(metric_calls=len(shown))),
        num_threads=threads,
        max_unscored=0,
        journal=journal,
    )
    candidate = instructions_of(program)
    if not evaluator.run((candidate, number) for number in range(len(shown))):
        raise EvaluationError(f"The LM stayed away: {evaluator.outage}")
    return list(evaluator.runs(candidate).values())


def text_of(program: dspy.Module | None) -> str | None:
    """The instructions of a program's one predictor."""
    return instructions_of(program)["self"] if program is not None else None


def ending(row: Mapping[str, Any]) -> str:
    """The end of a line of a table: the metric calls spent, and what was written or why nothing was."""
    return f"{row['metric_calls']:>8}  {row['failed'] or repr(row['instructions'])}"
