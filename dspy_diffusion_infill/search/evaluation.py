"""Run and score programs: each candidate on each example at most once, in threads, within the budget."""

from __future__ import annotations

import contextvars
import math
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import dspy

from dspy_diffusion_infill.errors import EvaluationError, MetricError, Unscored
from dspy_diffusion_infill.prompts.candidates import Candidate, key
from dspy_diffusion_infill.prompts.program import with_instructions
from dspy_diffusion_infill.search.budget import Meter
from dspy_diffusion_infill.search.metrics import Metric

Prompt = tuple[tuple[str, str], ...]

CANDIDATES_FAULT = {"AdapterParseError", "ContextWindowExceededError", "LMInvalidRequestError"}
"""Errors that a prompt causes: the answer cannot be parsed, or the request is too long or malformed. By name,
since the classes live in other places in other versions of DSPy."""
NOT_CANDIDATES_FAULT = {"LMUnsupportedModelError"}


@dataclass(frozen=True, slots=True)
class Step:
    """One call of one predictor while a program ran."""

    predictor: str
    inputs: dict[str, Any]
    outputs: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Run:
    """One program run on one example. Without a score it failed, or could not be judged."""

    score: float | None = None
    feedback: str | None = None
    failure: str | None = None
    unscored: str | None = None
    trace: tuple[Step, ...] = ()


class Evaluator:
    """Scores candidates of one program on a set of examples.

    A failure of the candidate (its text made an answer that cannot be parsed, or a prompt that is too long)
    is scored as the lowest score there is, and counted. Any other failure is raised and is never a score. An
    example that the metric could not judge counts for no candidate from then on.

    Args:
        program: Candidates are copies of it with other instructions. Not modified.
        metric: Higher is better.
        examples: What to run on. Not modified.
        role: Names the examples in errors: `valset` or `trainset`.
        meter: Grants a permit for each run.
        num_threads: Runs at a time. Scores, order and spend do not depend on it.
        max_unscored: Largest share of the examples that may go unscored.
    """

    def __init__(
        self,
        program: dspy.Module,
        *,
        metric: Metric,
        examples: Sequence[dspy.Example],
        role: str,
        meter: Meter,
        num_threads: int,
        max_unscored: float,
    ) -> None:
        self._program, self._metric, self._examples, self._role = program, metric, examples, role
        self._meter, self._num_threads, self._max_unscored = meter, num_threads, max_unscored
        self._order = list(range(len(examples)))
        self._runs: dict[tuple[Prompt, int], Run] = {}
        self._lowest, self._highest = 0.0, float("-inf")
        self.unscored: dict[int, str] = {}
        """Examples that count for no candidate, with the metric's reason."""
        self.num_failures = 0
        """Runs that failed by the candidate's fault."""

    @property
    def examples(self) -> Sequence[int]:
        """The examples that count, in the order in which to score them."""
        return [example for example in self._order if example not in self.unscored]

    def put_hard_examples_first(self, candidate: Candidate) -> None:
        """Order the examples by a candidate's scores, lowest first: there the next ones lose soonest."""
        runs = self.runs(candidate)
        self._order.sort(key=lambda example: self._score(runs[example]) if example in runs else float("inf"))

    def add(self, candidate: Candidate, example: int, score: float) -> None:
        """Take over a score found elsewhere."""
        self._record((key(candidate), example), Run(score))

    def run(self, pairs: Iterable[tuple[Candidate, int]], *, keep_traces: bool = False) -> bool:
        """Score candidates on examples, those not scored yet; False if the budget did not suffice for all.

        Args:
            pairs: What to run, in the order in which the budget is spent.
            keep_traces: Whether to keep what each predictor was given and gave back.

        Raises:
            EvaluationError: If a program failed for a reason that says nothing about its prompt.
            MetricError: If the metric raised or returned no number, or left too many examples unscored.
        """
        wanted = {(key(candidate), example): candidate for candidate, example in pairs}
        missing = [place for place in wanted if place not in self._runs]
        todo = missing[: self._meter.take(len(missing))]
        programs = {prompt: with_instructions(self._program, wanted[prompt, n]) for prompt, n in todo}
        done = self._run_all([(programs[prompt], example, keep_traces) for prompt, example in todo])
        for place, run in zip(todo, done, strict=True):
            if run is not None:
                self._record(place, run)
        self._check_unscored()
        return len(todo) == len(missing) and None not in done

    def num_scored(self, candidate: Candidate) -> int:
        """How many of the examples that count the candidate was run on."""
        return len(self.runs(candidate))

    def total(self, candidate: Candidate) -> float:
        """Sum of the candidate's scores on the examples that count, as far as it was run."""
        return math.fsum(self._score(run) for run in self.runs(candidate).values())

    def mean(self, candidate: Candidate) -> float | None:
        """Average score; None if not run on every example that counts."""
        runs = self.runs(candidate)
        return self.total(candidate) / len(runs) if runs and len(runs) == len(self.examples) else None

    def highest(self) -> float:
        """The highest score seen."""
        return self._highest

    def runs(self, candidate: Candidate) -> dict[int, Run]:
        """The candidate's runs on the examples that count, by example."""
        prompt = key(candidate)
        return {n: self._runs[prompt, n] for n in self.examples if (prompt, n) in self._runs}

    def good_calls(self, candidate: Candidate) -> dict[str, list[dict[str, Any]]]:
        """What each predictor was given and gave back in runs that scored well, by predictor.

        A run did well if it scored at least the candidate's mean, and more than the lowest score there is.
        """
        runs = self.runs(candidate).values()
        mean = self.total(candidate) / len(runs) if runs else 0.0
        good = [run for run in runs if self._score(run) >= mean and self._score(run) > self._lowest]
        calls: dict[str, list[dict[str, Any]]] = {}
        for step in (step for run in good for step in run.trace):
            calls.setdefault(step.predictor, []).append({**step.inputs, **step.outputs})
        return calls

    def _score(self, run: Run) -> float:
        return self._lowest if run.score is None else run.score

    def _record(self, place: tuple[Prompt, int], run: Run) -> None:
        self._runs.setdefault(place, run)
        self.num_failures += run.failure is not None
        if run.unscored is not None:
            self.unscored[place[1]] = run.unscored
        if run.score is not None:
            self._lowest, self._highest = min(self._lowest, run.score), max(self._highest, run.score)

    def _check_unscored(self) -> None:
        cap = self._max_unscored * len(self._examples)
        if len(self.unscored) > cap:
            example, reason = next(iter(self.unscored.items()))
            raise MetricError(
                f"The metric must leave at most {cap:g} of {len(self._examples)} {self._role} examples "
                f"unscored (max_unscored); got {len(self.unscored)}, the first at {self._role} example "
                f"{example}: {reason}"
            )

    def _run_all(self, tasks: Sequence[tuple[dspy.Module, int, bool]]) -> list[Run | None]:
        if not tasks:
            return []
        with ThreadPoolExecutor(self._num_threads) as pool:
            # each task in a copy of this context: dspy.context(...) of the caller reaches the threads
            futures = [pool.submit(contextvars.copy_context().run, self._run_one, *task) for task in tasks]
            try:
                return [future.result() for future in futures]
            except BaseException:
                self._meter.give_back(sum(future.cancel() for future in futures))
                raise

    def _run_one(self, program: dspy.Module, example: int, keep_trace: bool) -> Run | None:
        if self._meter.out_of_time:
            self._meter.give_back(1)
            return None
        where = f"{self._role} example {example}"
        # a trace of its own (Refine and BestOfN need one), and no growth of the global trace and history
        with dspy.context(trace=[], disable_history=True):
            try:
                prediction = program(**self._examples[example].inputs())
            except Exception as error:
                if not is_candidates_fault(error):
                    raise EvaluationError(
                        f"The program failed on {where}: {type(error).__name__}: {error}"
                    ) from error
                return Run(failure=f"{type(error).__name__}: {error}")
            trace = _steps(program) if keep_trace else ()
            try:
                verdict = self._metric(self._examples[example], prediction, where=where)
            except Unscored as reason:
                return Run(unscored=str(reason) or "no reason given")
        return Run(verdict.score, verdict.feedback, trace=trace)


def is_candidates_fault(error: Exception) -> bool:
    """Whether a prompt is to blame for an error; if not, the error says nothing about the prompt."""
    names = {cls.__name__ for cls in type(error).__mro__}
    return bool(names & CANDIDATES_FAULT) and not names & NOT_CANDIDATES_FAULT


def _steps(program: dspy.Module) -> tuple[Step, ...]:
    names = {id(predictor): name for name, predictor in program.named_predictors()}
    return tuple(
        Step(names[id(predictor)], dict(inputs), dict(outputs.items()))
        for predictor, inputs, outputs in dspy.settings.trace
        if id(predictor) in names
    )
