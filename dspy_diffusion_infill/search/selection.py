"""Which candidate wins a window.

Pure: no dspy, no torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from dspy_diffusion_infill.checks import check_finite, check_whole
from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.prompts.candidates import Candidate
from dspy_diffusion_infill.search.extremes import Extremes

SetMetric = Callable[[list[Any], list[float]], float]
"""(examples, what the metric returned for each) -> one score for them all, higher is better."""

BLOCK = 4
"""Examples that all candidates run on before the first look at a race."""
WIDTH = 8
"""Runs between two later looks, or more if they cannot be wasted: one for each of DSPy's threads."""
MAX_FAILURES = 3
"""Failures in the first block that drop a candidate."""
TOLERANCE = 1e-9
"""Sums of scores that differ by less are a tie."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """How candidates are compared.

    Example:
        >>> Selection(rule="full", shots=1).max_score
        1.0
    """

    rule: Literal["race", "full"] = "race"
    """`full` scores every candidate on every example. `race` drops a candidate as soon as it could not win
    even with `max_score` on all examples left: the same winner for fewer metric calls. It also drops one that
    failed three times (an answer that cannot be parsed) in the first block, where what is there did not."""
    shots: int = 8
    """Examples with reference outputs that a canvas shows the infiller; fewer if they do not fit."""
    max_score: float = 1.0
    """The highest score the metric can give; `math.inf` if there is none. A program with that score ends the
    search. A higher one seen, or one that the metric gives reference outputs, turns racing and that end off,
    with a warning."""
    max_unscored: float = 0.2
    """Largest share of the validation examples that may go unscored before the run stops."""
    set_metric: SetMetric | None = None
    """Makes the score of a candidate from (examples, what `metric` returned for each), e.g. a judge's rank
    correlation with people. It is known only when all are scored: the rule is `full` then. A run that failed
    counts as the lowest value that `metric` returned for any. None: the mean."""
    screen: float = 1.0
    """Share of the fillings that are scored by running the program. Below 1 the infiller says first how much
    likelier each makes the reference outputs than what is there, and the best share goes on: of all fillings
    so far, so that a poor window may get none. Needs an infiller that is a `Scorer`."""
    repeats: int = 1
    """Runs of every program on every example; for a task LM that answers at a temperature above 0. Each goes
    past the cache of the LMs that settings and predictors name, not of those that a program calls by itself.
    A winner must then gain more than `repeats.noise_floor`, measured on how its scores and those of what was
    there differ from run to run; `detailed_results["noise_floor"]` is that of start and result. Metric calls
    count each."""
    holdout: float | Literal["auto"] = "auto"
    """Share of the validation examples kept out of the search, and of the base and the canvases if these
    use the same ones. If the result gains nothing there, the start is returned; `detailed_results` has the
    paired interval. "auto": a quarter from 80 examples on, else none, and the result is unconfirmed."""

    def __post_init__(self) -> None:
        if self.set_metric is not None and not callable(self.set_metric):
            raise SettingsError(f"set_metric must be callable, or None; got {self.set_metric!r}.")
        check_whole({"shots": self.shots, "repeats": self.repeats})
        numbers = {"max_unscored": self.max_unscored, "screen": self.screen}
        check_finite(numbers if self.max_score == math.inf else {"max_score": self.max_score, **numbers})
        if not 0 < self.screen <= 1:
            raise SettingsError(f"screen must be above 0 and at most 1; got {self.screen}.")
        if self.repeats < 1 or (self.repeats > 1 and self.set_metric is not None):
            raise SettingsError(
                "repeats must be at least 1, and 1 with a set_metric, whose noise cannot be told from single "
                f"examples; got {self.repeats}."
            )
        if self.holdout != "auto" and (isinstance(self.holdout, str) or not 0 <= self.holdout < 1):
            raise SettingsError(f"holdout must be 'auto', or at least 0 and below 1; got {self.holdout!r}.")
        if self.rule not in ("race", "full"):
            raise SettingsError(f"rule must be 'race' or 'full'; got {self.rule!r}.")
        if self.shots < 0:
            raise SettingsError(f"shots must be at least 0; got {self.shots}.")
        if not 0 <= self.max_unscored < 1:
            raise SettingsError(f"max_unscored must be at least 0 and below 1; got {self.max_unscored}.")

    @property
    def races(self) -> bool:
        """Whether a candidate may be dropped before it is scored in full."""
        return self.rule == "race" and self.set_metric is None


class Board(Protocol):
    """Where a race reads scores, and asks for more."""

    @property
    def examples(self) -> Sequence[int]:
        """The validation examples that count, in the order in which to score them."""
        ...

    def put_hard_examples_first(self) -> None:
        """Order the examples by all scores so far: candidates lose soonest on those that most lost on."""
        ...

    def run(self, pairs: Iterable[tuple[Candidate, int]]) -> bool:
        """Score candidates on examples, those not scored yet; False if a cap or an outage left some out."""
        ...

    def missing(self, candidate: Candidate) -> Sequence[int]:
        """The examples that count and the candidate has no score on, in the order in which to score them."""
        ...

    def total(self, candidate: Candidate) -> float:
        """The candidate's score times the examples that count, as far as it has scores on them."""
        ...

    def num_failed(self, candidate: Candidate, beside: Candidate) -> int:
        """How many of the candidate's runs failed by its own fault, and did not of another beside it."""
        ...

    @property
    def seen(self) -> Extremes:
        """The lowest and the highest score that any candidate ever had on an example."""
        ...

    def noise(self, before: Candidate, after: Candidate) -> float:
        """What the mean of one candidate must exceed the other's by, lest the gain may be noise; or 0."""
        ...


def select(
    candidates: Sequence[Candidate], incumbent: Candidate, board: Board, selection: Selection
) -> Candidate:
    """Find the candidate with the highest total, if it beats the incumbent's.

    A tie keeps the incumbent, and among candidates the earlier one. Both rules give the same winner as long
    as the budget lasts; when it is spent, the best of those scored in full wins. A winner whose gain may be
    the noise of repeated runs is none.

    Args:
        candidates: In the order in which ties are decided.
        incumbent: Scored in full already.
        board: Scores so far; it is asked for more.
        selection: The rule, and the highest score there is.
    """
    race = _Race([incumbent, *candidates], board, selection)
    race.run()
    winner = race.leader()
    gain = (board.total(winner) - board.total(incumbent)) / max(1, len(board.examples))
    return winner if gain > board.noise(incumbent, winner) else incumbent


class _Race:
    def __init__(self, field: Sequence[Candidate], board: Board, selection: Selection) -> None:
        self.field, self.board, self.selection = field, board, selection
        self.broken = set[int]()

    def run(self) -> None:
        """All run the first block; then, look by look, the most promising."""
        self.board.put_hard_examples_first()
        if not self._advance({n: BLOCK - self._num_scored(n) for n in self._hopeful()}):
            return
        if self.selection.races:
            self.broken = {n for n in self._hopeful() if self._num_failed(n) >= MAX_FAILURES}
        while runners := self._hopeful():
            self.board.put_hard_examples_first()
            if not self._advance(self._steps(runners)):
                return

    def leader(self) -> Candidate:
        """The best of those scored in full; the earlier one on a tie."""
        return self.field[self._leader()]

    def _steps(self, runners: Sequence[int]) -> dict[int, int]:
        """The best runner on as many examples as may drop it; the next ones, if threads are left for them."""
        steps, bar = dict[int, int](), self._total(self._leader())
        for n in sorted(runners, key=lambda n: -self._total(n) / max(1, self._num_scored(n))):
            if (free := WIDTH - sum(steps.values())) <= 0:
                break
            steps[n] = min(self._enough(n, bar), free) if steps else self._enough(n, bar)
        return steps

    def _enough(self, n: int, bar: float) -> int:
        """The fewest examples that may drop a runner below the bar; all left, if none can."""
        spread = self._max_score() - self.board.seen.lowest
        if not 0 < spread < math.inf:
            return self._left(n)
        return max(1, math.ceil((self._margin(n, bar) - TOLERANCE) / spread))

    def _advance(self, steps: Mapping[int, int]) -> bool:
        """Score each runner on so many examples more."""
        missing = {n: self.board.missing(self.field[n])[: max(0, count)] for n, count in steps.items()}
        return self.board.run([(self.field[n], example) for n in steps for example in missing[n]])

    def _leader(self) -> int:
        best = 0
        for n in range(1, len(self.field)):
            if self._left(n) == 0 and self._total(n) > self._total(best) + TOLERANCE:
                best = n
        return best

    def _hopeful(self) -> list[int]:
        """Those neither broken nor yet scored in full that could still take the lead."""
        leader = self._leader()
        bar = self._total(leader)
        runners = (n for n in range(1, len(self.field)) if n not in self.broken and self._left(n))
        return [n for n in runners if self._margin(n, bar) > (-TOLERANCE if n < leader else TOLERANCE)]

    def _margin(self, n: int, bar: float) -> float:
        """How far above the bar a runner would end with the highest score on all examples left."""
        return self._total(n) + self._max_score() * self._left(n) - bar

    def _max_score(self) -> float:
        bounded = self.selection.races and self.board.seen.highest <= self.selection.max_score
        return self.selection.max_score if bounded else float("inf")

    def _left(self, n: int) -> int:
        return len(self.board.missing(self.field[n]))

    def _num_scored(self, n: int) -> int:
        return len(self.board.examples) - self._left(n)

    def _num_failed(self, n: int) -> int:
        return self.board.num_failed(self.field[n], self.field[0])

    def _total(self, n: int) -> float:
        return self.board.total(self.field[n])
