"""Locks: what no window may touch, and what agents need in their instructions."""

import re

import dspy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.prompts.locks import AUTOMATIC, check_locks, locked_spans, locks_for, unlocked
from dspy_diffusion_infill.prompts.program import instructions_of, signature_of
from dspy_diffusion_infill.prompts.protocols import idle_locks, program_locks, protocols
from dspy_diffusion_infill.prompts.windows import SlidingWindow


def locked(text, locks=AUTOMATIC):
    return [text[start:end] for start, end in locked_spans(text, locks)]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Cite {source} or {{mask:24}}.", ["{source}", "{{mask:24}}"]),
        ("Call `find` and ```\nx = 1\n```!", ["`find`", "```\nx = 1\n```"]),
        ("Say \"I don't know\", don't guess.", ['"I don\'t know"']),
        ("Answer 'yes' or 'no'; it's fine.", ["'yes'", "'no'"]),
        ("See https://a.org/b?c=1. Then stop.", ["https://a.org/b?c=1"]),
        ("Fill [[ ## rating ## ]] in <desc>", ["[[ ## rating ## ]]", "<desc>"]),
        ("Rate from 1 to 5: {} or a { b.", ["{}"]),
    ],
)
def test_what_must_survive_is_found(text, kept):
    assert locked(text) == kept


def test_field_names_are_locked_as_whole_words():
    locks = locks_for("auto", "self", ["rating"], [])
    assert locked("The rating of ratings: rating-scale, Rating.", locks) == ["rating"]


def test_locks_add_to_the_automatic_ones_for_all_or_for_one():
    own = ["keep me", re.compile(r"\d+")]
    text = "`a` keep me 12"
    assert locked(text, locks_for(own, "p", [], [])) == ["`a`", "keep me", "12"]
    assert locked(text, locks_for({"p": own}, "p", [], [])) == ["`a`", "keep me", "12"]
    assert locked(text, locks_for({"q": own}, "p", [], [])) == ["`a`"]
    assert locked(text, locks_for(None, "p", ["keep"], ["me"])) == []


def test_the_automatic_locks_can_be_asked_for_by_predictor():
    check_locks({"p": "auto", "q": ["keep"]})
    assert locked("`a` keep", locks_for({"p": "auto"}, "p", [], [])) == ["`a`"]


NEVER = re.compile(r"^NEVER.*$", re.MULTILINE)


@pytest.mark.parametrize(
    ("before", "after", "lost"),
    [
        ('Answer "yes" or "no".', 'Use a 12" mark. Answer "yes" or "no".', '"yes"'),
        ('Answer "yes" or "no".', 'Say "yes" or "no" now.', None),
        ('Answer "yes" or "no".', 'Say "no" or "yes".', '"no"'),
        ("Rate the review well.", "Rate the reviewer well.", "review"),
        ("Rate the review.", "Rate the review, or the other review.", None),
        ("Rate the review of a review.", "Rate the review.", "review"),
        ("Kindly.\nNEVER lie.", "Be warm. NEVER lie.", "NEVER lie."),
        ("See https://a.org now.", "See https://a.org/now.", None),
    ],
)
def test_what_is_locked_stays_locked_and_in_order(before, after, lost):
    locks = [NEVER, *locks_for("auto", "self", ["review"], [])]
    assert unlocked(before, after, locks) == lost
    assert unlocked(before, after, locks, (0, len(before))) is None


def test_a_literal_is_no_pattern_and_overlaps_merge():
    assert locked("a.b axb", ["a.b"]) == ["a.b"]
    assert locked_spans("abcd", ["abc", "bcd"]) == [(0, 4)]


@settings(deadline=None)
@given(st.text(st.sampled_from('ab {}`"'), max_size=60), st.integers(1, 6), st.data())
def test_windows_cover_all_but_the_locked_tokens(text, window, data):
    tokens = [match.span() for match in re.finditer(r"\s*\S", text)]
    spans = locked_spans(text, AUTOMATIC)
    masking = SlidingWindow(window=window, stride=data.draw(st.integers(1, window)))
    windows = masking.windows(text, tokens, spans)
    assert not any(w.start < end and start < w.end for w in windows for start, end in spans)
    for first, last in tokens:
        touched = any(first < end and start < last for start, end in spans)
        assert touched or any(w.start <= first and last <= w.end for w in windows)
    assert [w.start for w in windows] == sorted(w.start for w in windows)


def test_a_lock_between_tokens_parts_the_windows():
    # the tokens leave out the space that is locked
    windows = SlidingWindow(window=4).windows("a b", [(0, 1), (2, 3)], [(1, 2)])
    assert [(w.start, w.end) for w in windows] == [(0, 1), (2, 3)]


@pytest.mark.parametrize("setting", ["yes", 5, [5], [""], {"p": "all"}, [re.compile("")]])
def test_what_is_no_lock_is_refused(setting):
    with pytest.raises(SettingsError, match="lock"):
        check_locks(setting)


@pytest.mark.parametrize("setting", [map(re.compile, ["a"]), {"self": iter(["a"])}])
def test_locks_that_can_be_read_only_once_are_refused(setting):
    with pytest.raises(SettingsError, match=r"lock must be a list.*; got <.* Make it a list\."):
        check_locks(setting)


@pytest.mark.parametrize(
    ("setting", "idle"),
    [
        ("auto", []),
        (None, []),
        (["right label", re.compile("Rate .he")], []),
        (["right lable", "Rate"], ["right lable"]),
        ({"self": ["tone", "x"]}, ["tone", "x"]),
        ({"self": "auto"}, []),
    ],
)
def test_locks_that_lock_nothing_are_found(setting, idle):
    program = dspy.Predict(dspy.Signature("review -> rating", "Rate the review by its right label."))
    assert idle_locks(program, setting) == idle


def test_a_lock_for_an_unknown_predictor_is_refused():
    with pytest.raises(SettingsError, match=r"predictors of the program, \['self'\]; got \['react'\]"):
        program_locks(dspy.Predict("a -> b"), {"react": ["x"]})


def search(query: str) -> str:
    """Look it up."""
    return query


TASK = dspy.Signature("question -> answer", "Answer well.")


def test_an_agents_protocol_is_locked_and_its_task_is_not():
    react = dspy.ReAct(TASK, tools=[search])
    text = instructions_of(react)["react"]
    kept = locked(text, program_locks(react, "auto")["react"])
    assert kept == [text.removeprefix("Answer well.").strip()]
    assert "search" in kept[0]
    assert locked("Answer well.", program_locks(react, "auto")["extract.predict"]) == []


def test_the_protocol_is_found_after_the_task_was_rewritten():
    react = dspy.ReAct(TASK, tools=[search])
    before = protocols(react)["react"]
    text = instructions_of(react)["react"].replace("Answer well.", "Answer with care.")
    react.react.signature = signature_of(react.react).with_instructions(text)
    assert protocols(react)["react"] == before


def test_code_that_generates_code_is_all_protocol():
    class ProgramOfThought(dspy.Module):  # DSPy's own wants an interpreter
        def __init__(self):
            super().__init__()
            self.code_generate = dspy.ChainOfThought(dspy.Signature("question -> code", "Call SUBMIT."))

    locks = program_locks(ProgramOfThought(), "auto")
    assert locked("Call SUBMIT.", locks["code_generate.predict"]) == ["Call SUBMIT."]
