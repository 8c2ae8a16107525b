"""Candidates: what a filling makes of the instructions, and which fillings are refused."""

import inspect

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspy_diffusion_infill.prompts.candidates import Rejected, changed_span, key, propose
from dspy_diffusion_infill.prompts.canvas import Filling
from dspy_diffusion_infill.prompts.windows import Window

texts = st.text(st.sampled_from("ab \n\t"), max_size=30)


def fill(before, start, end, *fillings):
    """Propose for one predictor; the first filling is the likeliest."""
    scored = [Filling((text,), -float(n), 1) for n, text in enumerate(fillings)]
    return propose({"self": before}, "self", Window(start, end, (8,)), scored)


def test_the_likeliest_comes_first_and_repeats_are_dropped():
    fillings = [Filling((text,), score, 1) for text, score in (("x", -3.0), ("y", -1.0), ("x", -2.0))]
    candidates, rejected = propose({"p": "a b", "q": "c"}, "p", Window(2, 3, (1,)), fillings)
    assert candidates == [{"p": "a y", "q": "c"}, {"p": "a x", "q": "c"}]
    assert rejected == []


@pytest.mark.parametrize(
    ("filling", "reason"),
    [
        ("Rate it", "unchanged"),
        ("Rate\x07it", "unprintable"),
        ("R\N{REPLACEMENT CHARACTER}", "unprintable"),
        ("", "empty"),
        ("  \n ", "empty"),
    ],
)
def test_a_useless_filling_is_refused_with_its_reason(filling, reason):
    assert fill("Rate it", 0, 7, filling) == ([], [Rejected(filling, reason)])


def test_space_inside_the_window_is_kept():
    candidates, _ = fill("a b c", 2, 3, " x  ")
    assert candidates == [{"self": "a  x   c"}]


def test_a_filling_that_would_shift_other_lines_is_refused():
    # without the line "b", DSPy would take the indent of "c" for the text's own and remove it
    assert fill("a\nb\n  c", 2, 3, " x") == ([], [Rejected(" x", "shifts the text around the window")])


@settings(deadline=None)
@given(texts, texts, st.data())
def test_text_outside_the_window_never_changes(before, filling, data):
    before = inspect.cleandoc(before)
    start = data.draw(st.integers(0, len(before)))
    end = data.draw(st.integers(start, len(before)))
    candidates, _ = fill(before, start, end, filling)
    for candidate in candidates:
        after = candidate["self"]
        assert after == inspect.cleandoc(after) != before
        assert after.startswith(before[:start])
        assert after.endswith(before[end:])
        assert len(after) >= len(before) - (end - start)


@settings(deadline=None)
@given(texts, texts)
def test_the_changed_span_turns_one_text_into_the_other(before, after):
    start, old, new = changed_span(before, after)
    assert before[start : start + len(old)] == old
    assert before[:start] + new + before[start + len(old) :] == after


def test_equal_candidates_have_equal_keys_in_any_order():
    assert key({"a": "1", "b": "2"}) == key({"b": "2", "a": "1"}) != key({"a": "2", "b": "1"})
