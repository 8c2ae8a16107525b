"""Text that is given out while the rest is still masked."""

from __future__ import annotations

import pytest

from dspy_diffusion_infill.serving.streaming import Growing


def given(vocabulary, text, stops=(), size=1):
    """What a growing answer gives out, as `size` more tokens at a time become certain."""
    ids, growing = vocabulary.encode(text), Growing(vocabulary, stops)
    return [growing.grow(ids[:end]) for end in range(0, len(ids) + size, size)], growing


def test_pieces_add_up_to_the_text_and_nothing_is_taken_back(embedded):
    text = "Rate the review: süß, 5 of 5! 日本"
    pieces, growing = given(embedded.vocabulary, text)
    assert "".join(pieces) == text
    assert len([piece for piece in pieces if piece]) > 5
    assert growing.finish(text) == ""


def test_half_a_character_is_held_back(embedded):
    pieces, _ = given(embedded.vocabulary, "日")
    assert len(pieces) > 2
    assert [piece for piece in pieces if piece] == ["日"]


@pytest.mark.parametrize("size", [1, 2, 100])
def test_nothing_of_a_stop_text_is_given_out(embedded, size):
    pieces, growing = given(embedded.vocabulary, "one two [END] three", stops=["[END]", "zzz"], size=size)
    assert "".join(pieces) == "one two "
    assert growing.finish("one two ") == ""


def test_what_only_looked_like_a_stop_text_comes_later(embedded):
    pieces, growing = given(embedded.vocabulary, "a [EN", stops=["[END]"])
    assert "".join(pieces) == "a "
    assert growing.finish("a [EN") == "[EN"


def test_nothing_follows_a_stop_token(embedded):
    growing, vocabulary = Growing(embedded.vocabulary, ()), embedded.vocabulary
    stop = min(vocabulary.stop_ids)
    assert growing.grow([*vocabulary.encode("good"), stop, *vocabulary.encode("bad")]) == "good"
