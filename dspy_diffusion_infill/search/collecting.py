"""The traces that canvases are conditioned on: those of a log, and fresh ones of the candidate at hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import dspy

from dspy_diffusion_infill.prompts.candidates import Candidate, key
from dspy_diffusion_infill.search.evaluation import Evaluator
from dspy_diffusion_infill.search.running import Run
from dspy_diffusion_infill.search.session import Session
from dspy_diffusion_infill.search.start import Start
from dspy_diffusion_infill.traces import Trace

Traces = dict[str, list[Trace]]
"""By predictor name."""


class Collector:
    """Gathers traces as a search goes on.

    Fresh ones come from the runs that scored a candidate, with the metric's feedback on each. Examples that
    only select condition nothing: where they are not the trainset's, the candidate runs on trainset examples
    besides, twice as many as a canvas shows, within the same budget.

    Args:
        start: Its board holds the runs.
        session: Its task holds the log; says whether canvases are conditioned on traces at all.
    """

    def __init__(self, start: Start, session: Session) -> None:
        self._wanted = session.condition_on != "examples" and session.selection.shots > 0
        self._board, self._session, self._program = start.board, session, start.program
        self._names = [name for name, _ in start.program.named_predictors()]
        self._shown = session.task.trainset[: 2 * session.selection.shots]
        self._others: Evaluator | None = None
        self._found: dict[object, Traces] = {}
        self._none: Traces = {name: [] for name in self._names}

    def of(self, candidate: Candidate) -> Traces:
        """The traces for canvases that rewrite a candidate: fresh ones, then those of the log."""
        if not self._wanted:
            return self._none
        place = key(candidate)
        if place not in self._found:
            fresh = self._fresh(candidate)
            logged = self._session.task.traces
            self._found = {  # of one candidate at a time: the next one is its successor
                place: {
                    name: [trace for trace in (*fresh, *logged) if trace.predictor in (None, name)]
                    for name in self._names
                }
            }
        return self._found[place]

    def _fresh(self, candidate: Candidate) -> list[Trace]:
        task = self._session.task
        found = list(self._traces(self._board, task.valset, candidate)) if task.selects_on_trainset else []
        runs = self._board.runs(candidate).values() if task.selects_on_trainset else ()
        if found or any(run.trace is not None for run in runs):
            return found
        if self._others is None:
            self._others = self._session.evaluator(self._program, self._shown, "trainset")
        self._others.run([(candidate, example) for example in self._others.examples])
        return list(self._traces(self._others, self._shown, candidate))

    def _traces(
        self, board: Evaluator, examples: Sequence[dspy.Example], candidate: Candidate
    ) -> Iterator[Trace]:
        for number, run in board.runs(candidate).items():
            score = None if self._session.selection.set_metric is not None else run.score
            for step in run.trace or ():
                yield Trace(step.inputs, step.outputs, score, run.feedback, step.predictor)
            yield from self._failed(run, examples[number % len(examples)])

    def _failed(self, run: Run, example: dspy.Example) -> Iterator[Trace]:
        """A run without an answer: whose fault it was is known of a single predictor."""
        if run.failure is not None and len(self._names) == 1:
            feedback = f"There was no answer that could be read. {run.failure}"
            yield Trace(dict(example.inputs()), {}, None, feedback, self._names[0])
