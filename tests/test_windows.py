"""Windows: which characters are rewritten, and that no other ever is."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.prompts.windows import SlidingWindow, Window

sizes = st.integers(1, 12).flatmap(lambda window: st.tuples(st.just(window), st.integers(1, window)))
texts = st.text(st.sampled_from("ab é\n"), max_size=80)


def words(text):
    return [match.span() for match in re.finditer(r"\S+", text)]


def spans(masking, text):
    return [text[w.start : w.end] for w in masking.windows(text, words(text))]


def test_windows_slide_and_the_last_one_is_short():
    assert spans(SlidingWindow(window=3, stride=2), "a b c d e f") == ["a b c", "c d e", "e f"]
    assert spans(SlidingWindow(window=4, stride=2), "a b c d e f") == ["a b c d", "c d e f"]


def test_a_short_text_is_one_window_with_all_masks():
    assert SlidingWindow(window=8, mask=5).windows(" a b ", words(" a b ")) == [Window(0, 5, (5,))]
    assert SlidingWindow(window=2, stride=1, mask=5).windows(" a b", words(" a b")) == [Window(0, 4, (5,))]


PIECES = [(0, 2), (2, 7), (7, 11), (11, 16), (16, 21)]  # un happi ness _here _now!


def pieces(**settings):
    text = "unhappiness here now!"
    return [text[w.start : w.end] for w in SlidingWindow(**settings).windows(text, PIECES)]


def test_windows_grow_to_whole_words_unless_told_not_to():
    assert pieces(window=1, stride=1, snap=False) == ["un", "happi", "ness", " here", " now!"]
    assert pieces(window=1, stride=1) == ["unhappiness", " here", " now!"]


def test_of_windows_that_begin_at_the_same_word_the_longest_stays():
    assert pieces(window=2, stride=1, snap=False) == ["unhappi", "happiness", "ness here", " here now!"]
    assert pieces(window=2, stride=1) == ["unhappiness here", " here now!"]


def test_a_window_does_not_grow_into_a_lock():
    text, tokens = "un{x}happy", [(0, 2), (2, 5), (5, 7), (7, 10)]
    windows = SlidingWindow(window=1, stride=1).windows(text, tokens, [(2, 5)])
    assert [text[w.start : w.end] for w in windows] == ["un", "happy"]
    windows = SlidingWindow(window=1, stride=1).windows("unhappy", [(0, 2), (2, 4), (4, 7)], [(0, 2)])
    assert [(w.start, w.end) for w in windows] == [(2, 7)]


def test_tokens_that_share_a_character_do_not_split_it():
    assert [
        (w.start, w.end) for w in SlidingWindow(window=2, stride=2).windows("é!?", [(0, 1), (0, 1), (1, 3)])
    ] == [
        (0, 1),
        (1, 3),
    ]


@settings(deadline=None)
@given(texts, sizes)
def test_every_token_is_covered_in_order(text, size):
    window, stride = size
    windows = SlidingWindow(window=window, stride=stride).windows(text, words(text))
    assert all(any(w.start <= start and end <= w.end for w in windows) for start, end in words(text))
    assert [w.start for w in windows] == sorted({w.start for w in windows})
    assert all(len(words(text[w.start : w.end])) <= window for w in windows)


@settings(deadline=None)
@given(texts, sizes, st.text(max_size=10))
def test_replacing_a_window_leaves_the_rest_byte_identical(text, size, filling):
    window, stride = size
    for w in SlidingWindow(window=window, stride=stride).windows(text, words(text)):
        after = w.replace(text, filling)
        assert after == text[: w.start] + filling + text[w.end :]
        assert after.encode().startswith(text[: w.start].encode())


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"window": "8"}, "window must be a whole number; got '8'"),
        ({"stride": 1.5}, r"stride must be a whole number; got 1\.5"),
        ({"passes": "1"}, "passes must be a whole number; got '1'"),
        ({"window": 0}, "window must be at least 1; got 0"),
        ({"stride": 0}, "stride must be at least 1; got 0"),
        ({"mask": -1}, "mask must be at least 1; got -1"),
        ({"window": 4, "stride": 5}, "stride must be at most window, 4, .*got 5"),
        ({"order": "any"}, "order must be one of 'successive', 'independent', 'least_sure'; got 'any'"),
        ({"passes": 0}, "passes must be at least 1, or None; got 0"),
    ],
)
def test_a_size_out_of_range_is_refused(setting, message):
    with pytest.raises(SettingsError, match=message):
        SlidingWindow(**setting)
