"""Drop the accepted edits of a program that do not matter."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import dspy

from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.prompts.candidates import Candidate
from dspy_diffusion_infill.prompts.program import attach_reports, instructions_of
from dspy_diffusion_infill.search.budget import Budget, Meter, Preset, check_budget, resolve_budget
from dspy_diffusion_infill.search.edits import Edit, revert_edit
from dspy_diffusion_infill.search.evaluation import Evaluator
from dspy_diffusion_infill.search.metrics import Metric
from dspy_diffusion_infill.search.reverting import edits_of, with_edits
from dspy_diffusion_infill.search.selection import TOLERANCE, Selection
from dspy_diffusion_infill.search.session import Session
from dspy_diffusion_infill.search.task import check_examples, make_task

logger = logging.getLogger(__name__)


def prune(
    program: dspy.Module,
    metric: Callable[..., Any],
    *,
    valset: list[dspy.Example],
    edits: Sequence[Edit] | None = None,
    budget: Preset | Budget = "light",
    num_threads: int | None = None,
) -> dspy.Module:
    """Try a compiled program without each of its edits, the latest first, and drop those that do not matter.

    Without those it scores no lower on the valset. An edit that a later one builds on stays with it. Costs at
    most the valset once, and once more for each edit, within the budget; when that is spent, the rest stays.

    Args:
        program: As for `revert`. Not modified.
        metric: Any DSPy metric, higher is better.
        valset: Examples that decide; best others than those that the edits were selected on.
        edits: As for `revert`.
        budget: As for `DiffusionInfill`.
        num_threads: Program runs at a time; None takes DSPy's setting.

    Returns:
        A copy. Its `edits` say what they gain here; its `detailed_results` name those that were dropped.

    Raises:
        SettingsError: If an argument breaks its rule; nothing was spent.
        MetricError: If the metric raised, or returned no number.
        EvaluationError: If the program failed for a reason that says nothing about its prompt.
    """
    found = edits_of(program, edits)
    check_examples("valset", valset)
    check_budget(budget)
    session = Session(
        task=make_task(program, valset, None),
        metric=Metric(metric),
        meter=Meter(resolve_budget(budget, len(valset))),
        selection=Selection(max_score=math.inf),  # nothing is dropped early
        num_threads=num_threads,
    )
    with session.recorded(None, {}, (), resume=False):
        pruning = _Pruning(instructions_of(program), found, session.evaluator(program, valset, "valset"))
        pruning.run()
    pruned = with_edits(program, pruning.texts, pruning.kept)
    attach_reports(pruned, {"detailed_results": pruning.report()})
    return pruned


class _Pruning:
    def __init__(self, texts: Candidate, edits: list[Edit], board: Evaluator) -> None:
        self.texts, self.kept, self.dropped = texts, edits, list[Edit]()
        self._first, self._board = texts, board

    def run(self) -> None:
        """Go from the last edit to the first, as far as the budget goes."""
        for number in range(len(self.kept) - 1, -1, -1):
            try:
                without, others = revert_edit(self.texts, self.kept, number)
            except SettingsError as reason:
                logger.info("Edit %d stays. %s", number, reason)
                continue
            board = self._board
            board.run([(texts, example) for texts in (self.texts, without) for example in board.examples])
            if board.mean(self.texts) is None or board.mean(without) is None:
                if board.outage is not None:
                    logger.warning("Out of reach after every try: %s The rest is kept.", board.outage)
                return
            self._decide(number, without, others)

    def _decide(self, number: int, without: Candidate, others: list[Edit]) -> None:
        tested = self.kept[number].measured(self._board.gain(without, self.texts))
        matters = tested.gain > TOLERANCE
        logger.info("Edit %d %s: gain %.4g.", number, "stays" if matters else "goes", tested.gain)
        if matters:
            self.kept[number] = tested
        else:
            self.texts, self.kept = without, others
            self.dropped.append(tested)

    def report(self) -> dict[str, Any]:
        return {
            "score_before": self._board.mean(self._first),
            "score_after": self._board.mean(self.texts),
            "edits": [asdict(edit) for edit in self.kept],
            "dropped": [asdict(edit) for edit in self.dropped],
        }
