"""Predictors that the validation examples never reach."""

from __future__ import annotations

from dspy_diffusion_infill.prompts.candidates import Candidate
from dspy_diffusion_infill.search.evaluation import Evaluator
from dspy_diffusion_infill.search.proposals import Proposer
from dspy_diffusion_infill.search.saying import logger


def warn_if_idle(board: Evaluator, start: Candidate, proposer: Proposer) -> None:
    """Warn of predictors that have windows but can show no gain, if every run's calls are known."""
    runs = board.runs(start).values()
    called = [run.called for run in runs if run.called is not None]
    if not runs or len(called) < len(runs):
        return
    idle = sorted(set(start).difference(*called))
    if idle := [name for name in idle if proposer.places(start, name)]:
        logger.warning(
            "No run on the validation examples called %s: edits there can show no gain, and what they cost "
            "is spent in vain. lock={%r: [re.compile('(?s).+')]} leaves a predictor alone.",
            ", ".join(idle), idle[0],
        )  # fmt: skip
