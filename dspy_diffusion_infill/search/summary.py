"""What a run found and spent, as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from dspy_diffusion_infill.prompts.candidates import Candidate
from dspy_diffusion_infill.search.budget import Meter
from dspy_diffusion_infill.search.edits import Edit
from dspy_diffusion_infill.search.evaluation import Evaluator
from dspy_diffusion_infill.search.results import changes


def summary(
    start: Candidate, best: Candidate, edits: Sequence[Edit], board: Evaluator, meter: Meter
) -> dict[str, Any]:
    """The run for `detailed_results`, under the names that DSPy's optimizers use."""
    return {
        "instructions_before": dict(start),
        "instructions_after": dict(best),
        "changes": changes(start, best),
        "edits": [asdict(edit) for edit in edits],
        "score_before": board.mean(start),
        "score_after": board.mean(best),
        "noise_floor": board.noise(start, best),
        "num_failures": board.failures.total,
        "failures": board.failures.counts,
        "unscored": board.left_out.reasons,
        "metric_calls": meter.spent,
        "resumed_calls": board.num_resumed,
        "tokens": meter.tokens,
        "usd": meter.usd if meter.budget.usd is not None else None,
        "seconds": meter.seconds,
    }
