"""Selection: the race has the winner of a full comparison, for fewer calls."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.search.extremes import Extremes
from dspy_diffusion_infill.search.selection import Selection, select

FAILED = -1.0
"""A score that stands for a run that failed."""


class Table:
    """A board over a table of scores: row 0 is the incumbent, scored already. Candidates are named by row."""

    def __init__(self, rows, budget=10_000, floor=0.0):
        self.rows, self.budget, self.calls, self.floor = rows, budget, 0, floor
        self.examples = range(len(rows[0]))
        self.found = [{} for _ in rows]
        self.found[0] = dict(enumerate(rows[0]))

    def put_hard_examples_first(self):
        """By a column's mean of what was seen."""
        columns = [[scores[n] for scores in self.found if n in scores] for n in range(len(self.examples))]
        self.examples = sorted(self.examples, key=lambda n: sum(columns[n]) / len(columns[n]))

    def run(self, pairs):
        for candidate, example in pairs:
            if example not in self.found[candidate]:
                if self.calls == self.budget:
                    return False
                self.calls += 1
                self.found[candidate][example] = self.rows[candidate][example]
        return True

    def missing(self, candidate):
        return [n for n in self.examples if n not in self.found[candidate]]

    def total(self, candidate):
        return sum(self.found[candidate].values())

    def num_failed(self, candidate, beside):
        failed = [n for n in self.found[candidate] if self.rows[candidate][n] == FAILED]
        return sum(self.rows[beside][n] != FAILED for n in failed)

    @property
    def seen(self):
        extremes = Extremes(floor=0.0)
        for score in (score for scores in self.found for score in scores.values()):
            extremes.add(score)
        return extremes

    def noise(self, before, after):
        return self.floor

    def select(self, rule, **settings):
        return select(list(range(1, len(self.rows))), 0, self, Selection(rule=rule, **settings))


scores = st.sampled_from([0.0, 0.25, 0.5, 1.0])
tables = st.integers(1, 20).flatmap(
    lambda width: st.lists(st.lists(scores, min_size=width, max_size=width), min_size=1, max_size=7)
)


@settings(deadline=None, max_examples=50)
@given(tables)
def test_the_race_has_the_winner_of_the_full_comparison(rows):
    totals = [sum(row) for row in rows]
    raced, full = Table(rows), Table(rows)
    assert raced.select("race") == full.select("full") == totals.index(max(totals))
    assert raced.calls <= full.calls


@settings(deadline=None, max_examples=50)
@given(tables)
def test_scores_above_the_stated_maximum_never_cost_the_winner(rows):
    totals = [sum(row) for row in rows]
    if rows[0][0] == 1.0:  # seen before the race: 1.0 is more than the 0.5 it was told
        assert Table(rows).select("race", max_score=0.5) == totals.index(max(totals))


def test_an_earlier_candidate_that_can_still_tie_is_not_dropped():
    late, early = [0.0] * 4 + [1.0] * 4, [1.0] * 4 + [0.0] * 4
    assert Table([[0.0] * 8, late, early]).select("race") == 1


def test_a_narrow_chance_is_a_chance():
    assert Table([[1.0, 1.0, 1.0, 0.9], [1.0] * 4]).select("race") == 1


def test_hopeless_candidates_stop_at_the_first_block():
    incumbent, hopeless, winner = [1.0] * 11 + [0.0], [0.0] * 12, [1.0] * 12
    table = Table([incumbent, hopeless, winner])
    assert table.select("race") == 2
    assert table.calls == 4 + 12  # one block, and the winner in full


def test_many_hopeless_candidates_stop_at_the_example_that_rules_them_out():
    """After the first block and the winner, the others run one by one, first where the winner failed."""
    incumbent, hopeless, winner = [0.0] * 8, [0.0] + [1.0] * 6 + [0.0], [1.0] * 7 + [0.0]
    table = Table([incumbent, *[hopeless] * 16, winner])  # earlier ones would win a tie
    assert table.select("race") == 17
    assert table.calls == 8 + 16 * 5


def test_examples_that_most_lost_on_come_first():
    """Earlier runs show that the last four are hard: there the hopeless stop after the first block."""
    incumbent, hopeless, winner = [1.0] * 4 + [0.0] * 4, [1.0] * 4 + [0.0] * 4, [1.0] * 7 + [0.0]
    table = Table([incumbent, winner, hopeless, hopeless])
    assert table.select("race") == 1
    assert table.calls == 8 + 2 * 4


class Batched(Table):
    """Remembers how many runs it was asked for at once."""

    def __init__(self, rows):
        super().__init__(rows)
        self.batches = []

    def run(self, pairs):
        before, done = self.calls, super().run(pairs)
        self.batches.append(self.calls - before)
        return done


def test_the_most_promising_stops_where_it_is_lost():
    """Right where the incumbent failed, it is wrong on the next three; the other one wins."""
    incumbent = [1.0] * 9 + [0.0] * 3
    promising, winner = [1.0] + [0.0] * 8 + [1.0] * 3, [1.0] * 9 + [0.0] + [1.0] * 2
    table = Batched([incumbent, promising, winner])
    assert table.select("race") == 2
    assert table.batches == [2 * 4, 3 + 2, 2, 2, 2]  # with a margin of 2, a run on 1 example decides nothing


def test_no_candidate_runs_on_more_examples_than_its_failures_decide():
    """One failure in the first block; two more are out, wherever they lie, and run at once."""
    table = Batched([[1.0] * 13 + [0.0] * 3, [0.0] * 13 + [1.0] * 3])
    assert table.select("race") == 0
    assert table.batches == [4, 2]


def test_the_most_promising_goes_first_and_others_take_the_threads_left():
    """All are right on the first four; what was there, on six of ten. The second one wins."""
    incumbent, losers = [0.0] * 4 + [1.0] * 6, [1.0] * 4 + [0.0] * 6
    table = Batched([incumbent, losers, [1.0] * 10, losers])
    assert table.select("race") == 2
    assert table.batches == [3 * 4, 4 + 4, 2 + 4]  # failing on four more, a loser is out
    assert [len(scores) for scores in table.found[1:]] == [8, 10, 8]


def test_without_a_highest_score_the_first_runs_to_the_end_at_once():
    table = Batched([[0.0] * 40, [1.0] * 40])
    assert table.select("full") == 1
    assert table.batches == [4, 36]


def test_a_metric_whose_highest_score_is_0_is_raced_too():
    """Losses: four of the highest loss so far are as many as the first lost in all."""
    table = Batched([[-0.5] * 4 + [0.0] * 14, [0.0] * 4 + [-0.5] * 14])
    assert table.select("race", max_score=0.0) == 0
    assert table.batches == [4, 4]


def test_a_candidate_that_failed_three_times_in_the_first_block_is_dropped():
    incumbent, thrice, twice = [-2.0] * 8, [FAILED] * 3 + [1.0] * 5, [FAILED] * 2 + [0.0] * 6
    table = Table([incumbent, thrice, twice])
    assert table.select("race") == 2
    assert table.calls == 4 + 8
    assert Table([incumbent, thrice, twice]).select("full") == 1


def test_a_score_of_the_whole_set_leaves_nothing_to_race():
    table = Table([[1.0] * 8, [0.0] * 8])
    assert table.select("race", set_metric=lambda examples, values: 0.0) == 0
    assert table.calls == 8


def test_a_perfect_incumbent_costs_no_call():
    table = Table([[1.0] * 8, [1.0] * 8, [0.0] * 8])
    assert table.select("race") == 0
    assert table.calls == 0


def test_a_tie_keeps_the_incumbent_and_then_the_earlier_candidate():
    assert Table([[1, 0], [0, 1]]).select("full") == 0
    assert Table([[0, 0], [0, 1], [1, 0]]).select("full") == 1


@pytest.mark.parametrize(("floor", "winner"), [(0.24, 1), (0.25, 0)])
def test_a_winner_must_gain_more_than_the_noise(floor, winner):
    assert Table([[0.0] * 4, [1.0, 0.0, 0.0, 0.0]], floor=floor).select("race") == winner


@pytest.mark.parametrize("rule", ["race", "full"])
def test_a_spent_budget_leaves_the_best_of_those_scored_in_full(rule):
    rows = [[0.0] * 8, [0.5] * 8, [1.0] * 8]
    assert Table(rows, budget=7).select(rule) == 0
    assert Table(rows, budget=4 + 4 + 4).select(rule) == 2


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"rule": "fast"}, "rule must be 'race' or 'full'; got 'fast'"),
        ({"shots": 2.5}, r"shots must be a whole number; got 2\.5"),
        ({"repeats": "2"}, "repeats must be a whole number; got '2'"),
        ({"max_score": None}, "max_score must be a finite number; got None"),
        ({"max_score": float("nan")}, "max_score must be a finite number; got nan"),
        ({"screen": None}, "screen must be a finite number; got None"),
        ({"shots": -1}, "shots must be at least 0; got -1"),
        ({"repeats": 0}, "repeats must be at least 1, and 1 with a set_metric.*got 0"),
        ({"repeats": 2, "set_metric": max}, "repeats must be at least 1, and 1 with a set_metric.*got 2"),
        ({"screen": 0}, "screen must be above 0 and at most 1; got 0"),
        ({"max_unscored": 1.0}, "max_unscored must be at least 0 and below 1; got 1.0"),
    ],
)
def test_a_setting_out_of_range_is_refused(setting, message):
    with pytest.raises(SettingsError, match=message):
        Selection(**setting)
