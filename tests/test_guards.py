"""Guards: what may not get into an instruction, whatever it scores."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.prompts.guards import Guard, word_grams, words

FIRST = "Rate the review."
CHINESE, JAPANESE = "这部电影非常无聊而且剧情拖沓", "この映画はとても退屈でした"
EXAMPLES = word_grams(["The plot was thin, but the cast saved it.", "5", CHINESE, JAPANESE], 5)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Rate it: but the CAST, saved it!", "copies 5 words from an example: 'but the cast saved it'"),
        ("Rate the {review}.", "breaks or adds markup"),
        ("Rate the `review.", "breaks or adds markup"),
        ("Rate [[ ## it.", "breaks or adds markup"),
        ("Rate it <b>now.", "breaks or adds markup"),
        ("Rate it <|mask|>.", "breaks or adds markup"),
        ("Rate rate RATE rate it.", "repeats a word 4 times"),
        ("Rate it like 电影非常无 films.", "copies 5 words from an example: '电 影 非 常 无'"),
        ("Rate it: とても退屈!", "copies 5 words from an example: 'と て も 退 屈'"),
        ("Rate it. " + "好" * 60, "repeats a word 60 times"),
        ("x" * 401, "longer than 400 characters"),
    ],
)
def test_what_may_not_get_in_is_named(text, reason):
    assert Guard().flaw(FIRST, text, EXAMPLES) == reason


@pytest.mark.parametrize(
    "text",
    [
        "Rate the plot: the cast saved it.",
        "Use `one` of 1 to 5.",
        "Very, very, very good is 5.",
        "电影非常 is 5, 非常无聊 is 1.",
        "Rate 영화가 매우 지루하고 films.",
        "x" * 400,
        FIRST,
    ],
)
def test_what_does_no_harm_gets_in(text):
    assert Guard().flaw(FIRST, text, EXAMPLES) is None


@pytest.mark.parametrize(
    "first", ["But the cast saved it. {a} `", "no no no no no", "y" * 150 + " but the cast saved it {}"]
)
def test_what_was_there_before_may_stay(first):
    assert Guard().flaw(first, first, EXAMPLES) is None


def test_the_limit_grows_with_the_first_instructions():
    assert Guard(growth=2).flaw("a" * 300, "b" * 600, set()) is None
    assert Guard(growth=2).flaw("a" * 300, "b" * 601, set()) == "longer than 600 characters"


def test_words_of_scripts_without_spaces_are_characters():
    assert words("Rate 电影, 「テスト」・café 영화가 ok2!") == [
        *("rate", "电", "影", "テ", "ス", "ト", "café", "영화가", "ok2")
    ]


@settings(deadline=None)
@given(st.lists(st.sampled_from(["a", "b", "c"]), max_size=12), st.integers(1, 4))
def test_grams_are_all_runs_of_words(tokens, size):
    text = ", ".join(tokens).upper()
    assert words(text) == tokens
    runs = {tuple(tokens[n : n + size]) for n in range(len(tokens))}
    assert word_grams([text], size) == {run for run in runs if len(run) == size}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"copied_words": 0}, "copied_words must be at least 1; got 0"),
        ({"repeats": 1}, "repeats must be at least 2; got 1"),
        ({"growth": 0.5}, r"growth must be at least 1; got 0\.5"),
        ({"floor_chars": -1}, "floor_chars must be at least 0; got -1"),
    ],
)
def test_a_setting_out_of_range_is_refused(setting, message):
    with pytest.raises(SettingsError, match=message):
        Guard(**setting)
