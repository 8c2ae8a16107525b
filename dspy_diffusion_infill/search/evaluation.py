"""Run and score programs: each candidate on each example at most once, in threads, within the budget."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import dspy

from dspy_diffusion_infill.errors import MetricError
from dspy_diffusion_infill.prompts.candidates import Candidate, key
from dspy_diffusion_infill.search.alike import Alike
from dspy_diffusion_infill.search.blame import Blame
from dspy_diffusion_infill.search.budget import Meter
from dspy_diffusion_infill.search.extremes import Extremes
from dspy_diffusion_infill.search.gains import Gain, paired_gain
from dspy_diffusion_infill.search.hardness import Hardness
from dspy_diffusion_infill.search.journal import Journal
from dspy_diffusion_infill.search.kept_runs import KeptRuns, Place, Prompt
from dspy_diffusion_infill.search.left_out import LeftOut
from dspy_diffusion_infill.search.metrics import Metric, score_set
from dspy_diffusion_infill.search.reasons import Reasons
from dspy_diffusion_infill.search.repeats import averaged, noise_floor
from dspy_diffusion_infill.search.running import Run, Runner
from dspy_diffusion_infill.search.selection import SetMetric
from dspy_diffusion_infill.search.variants import Variants


class Evaluator:
    """Scores candidates of one program on a set of examples.

    A failure of the candidate (its text made an answer that cannot be parsed, a prompt that is too long, or
    an error of a program that `Blame` does not take for broken) is scored as the lowest score there is, and
    counted. An outage is waited out; if it lasts, nothing more is run. Any other failure is raised. Neither
    is ever a score. An example that the metric could not judge counts for no candidate from then on.

    Args:
        program: Candidates are copies of it with other instructions. Not modified.
        metric: Higher is better.
        examples: What to run on. Not modified.
        role: Names the examples in errors: `valset` or `trainset`; `holdout` is of the valset.
        numbers: Of the examples, as the user knows them; None for those of their order.
        meter: Grants a permit for each run.
        num_threads: Runs at a time. Scores, order and spend do not depend on it.
        max_unscored: Largest share of the examples that may go unscored.
        set_metric: Makes one score of those of all examples; None takes their mean.
        keep_traces: Whether to keep of every run what each predictor was given and gave back.
        repeats: Runs of a candidate on each example; they are numbered as further examples (`repeats`).
        max_score: The highest score that the metric should give; a higher one is told.
        journal: Gets every run, and gives those of an earlier process; they count as spent.
    """

    def __init__(
        self,
        program: dspy.Module,
        *,
        metric: Metric,
        examples: Sequence[dspy.Example],
        role: str,
        numbers: Sequence[int] | None = None,
        meter: Meter,
        num_threads: int,
        max_unscored: float,
        set_metric: SetMetric | None = None,
        keep_traces: bool = False,
        repeats: int = 1,
        max_score: float = math.inf,
        journal: Journal | None = None,
    ) -> None:
        self._alike, self._num_examples = Alike(len(program.predictors())), len(examples)
        self._variants = Variants(program, self._alike.lost)
        self._meter, self._keep_traces = meter, keep_traces
        self._examples, self._set_metric = examples, set_metric
        self._numbers = range(len(examples)) if numbers is None else numbers
        names = [f"{'valset' if role == 'holdout' else role} example {number}" for number in self._numbers]
        self._runner = Runner(metric, examples, names=names, meter=meter, num_threads=num_threads)
        self._kept = KeptRuns(journal, program, role, meter)
        self._blame = Blame(self._runner, self._variants, len(examples))
        self._order = list(range(repeats * len(examples)))
        self._runs: dict[Prompt, dict[int, Run]] = {}
        # a mean takes a failure for the lowest score there may be, a set metric for the lowest value it has
        self.seen, self._hardness = Extremes(max_score, None if set_metric else 0.0), Hardness()
        self.left_out = LeftOut(self._numbers, num_runs=len(self._order), most=max_unscored, role=role)
        """Examples that count for no candidate."""
        self.failures = Reasons()
        """Why runs failed by the candidate's fault."""

    @property
    def num_resumed(self) -> int:
        """Runs that an earlier process had paid for."""
        return self._kept.num_found

    @property
    def outage(self) -> str | None:
        """Why nothing more is run: an error of a service that is down; None if all is well."""
        return self._runner.outage

    @property
    def examples(self) -> Sequence[int]:
        """The examples that count, in the order in which to score them."""
        return [example for example in self._order if example not in self.left_out]

    def put_hard_examples_first(self) -> None:
        """Order the examples by their mean scores so far, lowest first: there candidates lose soonest."""
        self._order.sort(key=self._hardness.mean)

    def add(self, candidate: Candidate, example: int, score: float) -> None:
        """Take over a score found elsewhere."""
        self._record((key(candidate), example), Run(score))

    def run(self, pairs: Iterable[tuple[Candidate, int]], *, keep_traces: bool = False) -> bool:
        """Score candidates on examples, those not scored yet; False if a cap or an outage left some out.

        Args:
            pairs: What to run, in the order in which the budget is spent.
            keep_traces: Whether to keep what each predictor was given and gave back, if not of every run.

        Raises:
            EvaluationError: If a program failed for a reason that says nothing about its prompt.
            MetricError: If the metric raised or returned no number, or left too many examples unscored.
        """
        keep_traces = keep_traces or self._keep_traces
        wanted = {(key(candidate), example): candidate for candidate, example in pairs}
        missing = [place for place in wanted if place[1] not in self._found(place[0])]
        todo = missing[: self._meter.take(len(missing))]
        done = {place: run for place in todo if (run := self._kept.find(place, needs_trace=keep_traces))}
        done |= self._run({place: wanted[place] for place in todo if place not in done}, keep_traces)
        for place in todo:
            if place in done:
                self._record(place, done[place])
        self.left_out.check()
        return len(done) == len(missing)

    def scores(self, candidate: Candidate) -> dict[int, float]:
        """The candidate's scores on the examples that count, by example, as far as it was run."""
        return {example: self._score(run) for example, run in self.runs(candidate).items()}

    def missing(self, candidate: Candidate) -> list[int]:
        """The examples that count and the candidate was not run on, in the order in which to score them."""
        found = self._found(key(candidate))
        return [example for example in self.examples if example not in found]

    def num_scored(self, candidate: Candidate) -> int:
        """How many of the examples that count the candidate was run on."""
        return len(self.runs(candidate))

    def total(self, candidate: Candidate) -> float:
        """The candidate's score times the examples that count; without a set metric, the sum of its scores.

        That is known as far as the candidate was run; a set metric's, when it was run on all: 0 until then.
        """
        scores = self.scores(candidate)
        if self._set_metric is None:
            return math.fsum(scores.values())
        whole = len(scores) == len(self.examples)
        return self._score_set(list(scores), list(scores.values())) * len(scores) if whole else 0.0

    def mean(self, candidate: Candidate, *, partly: bool = False) -> float | None:
        """The candidate's score; None if not run on every example that counts.

        Args:
            candidate: What was run.
            partly: Whether the mean of a few scores will do.
        """
        num_scored = self.num_scored(candidate)
        whole = (partly and self._set_metric is None) or num_scored == len(self.examples)
        return self.total(candidate) / num_scored if num_scored and whole else None

    def gain(self, before: Candidate, after: Candidate) -> Gain:
        """How much better one candidate is than another, on the examples that both were run on."""
        pair = [averaged(self.scores(candidate), self._num_examples) for candidate in (before, after)]
        found = paired_gain(pair[0], pair[1], self._score_drawn)
        return replace(found, moved=tuple((self._numbers[n], change) for n, change in found.moved))

    def noise(self, before: Candidate, after: Candidate) -> float:
        """What one candidate's score must exceed the other's by, lest the gain may be noise; or 0."""
        return noise_floor([self.scores(before), self.scores(after)], self._num_examples)

    def num_failed(self, candidate: Candidate, beside: Candidate | None = None) -> int:
        """How many of the candidate's runs failed by its own fault, and did not of another beside it.

        Beside one that always failed, all count: it does not say which examples no prompt can have answered.
        """
        failed, others = self._failed(candidate), set[int]() if beside is None else self._failed(beside)
        always = beside is not None and len(others) == self.num_scored(beside)
        return len(failed if always else failed - others)

    def _failed(self, candidate: Candidate) -> set[int]:
        return {example for example, run in self.runs(candidate).items() if run.failure is not None}

    def runs(self, candidate: Candidate) -> dict[int, Run]:
        """The candidate's runs on the examples that count, by example."""
        found = self._runs.get(key(candidate), {})
        return {n: found[n] for n in self.examples if n in found}

    def _found(self, prompt: Prompt) -> dict[int, Run]:
        """The runs of a candidate, and those of others that it would repeat."""
        found = self._runs.setdefault(prompt, {})
        self._alike.complete(prompt, found, self._order)
        return found

    def _run(self, wanted: Mapping[Place, Candidate], keep_traces: bool) -> dict[Place, Run]:
        places = list(wanted)

        def keep(number: int, run: Run) -> None:
            self._kept.keep(places[number], run)

        get, size = self._variants.get, self._num_examples
        tasks = ((get(one, place[1] // size), place[1], keep_traces) for place, one in wanted.items())
        runs = self._runner.run_all(tasks, len(places), keep)
        done = {place: run for place, run in zip(places, runs, strict=True) if run is not None}
        for place in self._blame.check(done):
            self._kept.keep(place, done[place])
        return done

    def _score_set(self, examples: Sequence[int], scores: Sequence[float]) -> float:
        return score_set(self._set_metric, [self._examples[n] for n in examples], scores)

    def _score_drawn(self, examples: Sequence[int], scores: Sequence[float]) -> float:
        """The same for examples drawn at random, of which a set metric may make no number."""
        try:
            return self._score_set(examples, scores)
        except MetricError:
            return math.nan

    def _score(self, run: Run) -> float:
        return self.seen.lowest if run.score is None else run.score

    def _record(self, place: Place, run: Run) -> None:
        self._runs.setdefault(place[0], {}).setdefault(place[1], run)
        if run.failure is not None:
            self.failures.add(run.failure)
        self._blame.learn(place, run)
        self._alike.add(place, run)
        if run.unscored is not None:
            self.left_out.add(place[1], run.unscored)
        else:
            self._hardness.add(place[1], self._score(run))
        if run.score is not None:
            self.seen.add(run.score)
