"""The bars of the budget benchmark, on runs made up by hand."""

import math

from benchmarks.budget_bars import Row, bars, fewest_calls


def row(method, *, start="vague", cap=None, calls=100, gain=0.5, held_out=0.5, text="t", seed=0, fewest=40):
    return Row("scheme", seed, start, method, cap, calls, gain, held_out, text, fewest)


def test_rules_are_compared_by_calls_gains_and_winners_of_the_same_cells():
    found = bars(
        [
            row("full", text="a"),
            row("race", calls=60, text="a"),
            row("screen", calls=20, gain=0.4, text="b"),
            row("full", seed=1, text="c", fewest=60),
            row("race", seed=1, calls=80, text="d"),
            row("screen", seed=1, calls=40, gain=0.6, text="c"),
            row("full", start="good", text="e"),
            row("race", start="good", calls=50, text="e"),
            row("screen", start="good", calls=1, gain=0.0),
        ]
    )
    assert found == {
        "race_call_share": 0.7,
        "race_same_winner": 0.5,
        "fewest_call_share": 0.5,
        "screen_call_share": 0.3,
        "screen_gain_share": 1.0,
        "race_call_share_good": 0.5,
        "race_same_winner_good": 1.0,
        "fewest_call_share_good": 0.4,
    }


def trial(score, texts, after, metric_calls):
    return {
        "score": score,
        "candidates": [{"text": text} for text in texts],
        "after": after,
        "metric_calls": metric_calls,
    }


def test_losers_need_as_many_failures_as_the_winner_has():
    """Eight examples. The first window's winner fails on 2: 8 calls for it and 2 for each loser, not 24. The
    second has none, and what is there fails on 2: 2 for each. The third scored one again, for no call."""
    trials = [
        trial(0.75, "abc", "b", 24),
        trial(0.75, "ab", None, 16),
        trial(0.75, "a", None, 0),
    ]
    assert fewest_calls(trials, 8 + 24 + 16, 8) == 8 + (8 + 2 + 2) + (2 + 2)


def test_proposers_are_compared_at_the_largest_cap_and_overruns_are_told():
    found = bars(
        [
            row("infill", cap=160, calls=160, held_out=0.1),
            row("infill", cap=480, calls=480, held_out=0.75),
            row("copro", cap=480, calls=483, held_out=0.5),
            row("random", cap=480, calls=300, held_out=0.25),
        ]
    )
    assert found == {"gain_vs_random": 0.5, "gain_vs_copro": 0.25, "cap_overrun_calls": 3}


def test_what_was_not_run_has_no_bar_and_a_share_of_no_gain_is_no_number():
    assert bars([]) == {}
    flat = bars([row(rule, gain=0.0) for rule in ("full", "race", "screen")])
    assert math.isnan(flat["screen_gain_share"])
