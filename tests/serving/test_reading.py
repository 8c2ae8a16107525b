"""Answers of a server that is none, or a broken one: never a filling, always an error in words."""

from __future__ import annotations

import pytest

from dspy_diffusion_infill.errors import InfillerUnavailableError
from dspy_diffusion_infill.prompts.canvas import Filling
from dspy_diffusion_infill.serving.reading import (
    Counted,
    read,
    read_card,
    read_fillings,
    read_offsets,
    read_scores,
)

URL = "http://there"
GOOD = {"texts": ["a", "b"], "log_likelihood": -1, "num_passes": 2, "confidences": [[0.5], [1.0, 1]]}
NAN = float("nan")
INFINITE = float("inf")


def test_a_good_filling_is_read():
    (found,) = read_fillings({"fillings": [[GOOD]], "new": 1}, [2], 1, URL)
    assert found == [Filling(("a", "b"), -1.0, 2, ((0.5,), (1.0, 1.0)))]
    assert read_fillings({"fillings": [[GOOD | {"confidences": []}]]}, [2], 1, URL)[0][0].confidences == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"texts": "ab"}, "sends no fillings: fillings.0.0.texts: Input should be a valid list; got 'ab'."),
        ({"texts": ["a", None]}, r"fillings.0.0.texts.1: Input should be a valid string; got None"),
        ({"texts": ["a"]}, "http://there must give texts for 2 masked parts; got 1."),
        ({"confidences": [[1.0]]}, "must give confidences for 2 masked parts; got 1."),
        ({"confidences": ["x", "y"]}, r"confidences.0: Input should be a valid list; got 'x'"),
        ({"confidences": [["x"], []]}, r"confidences.0.0: Input should be a valid number; got 'x'"),
        ({"log_likelihood": NAN}, "log_likelihood: Input should be a finite number; got nan"),
        ({"num_passes": INFINITE}, "num_passes: Input should be a .*; got inf"),
        ({"num_passes": True}, "num_passes: Input should be a valid integer; got True"),
    ],
)
def test_a_filling_of_another_shape_is_none(change, message):
    with pytest.raises(InfillerUnavailableError, match=message):
        read_fillings({"fillings": [[GOOD | change]]}, [2], 1, URL)


@pytest.mark.parametrize("number", [0, 1, 3])
def test_fillings_are_as_many_as_were_asked_for(number):
    with pytest.raises(InfillerUnavailableError, match=f"must fill a canvas 2 times; got {number}"):
        read_fillings({"fillings": [[GOOD] * number]}, [2], 2, URL)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([], "http://there must score 1 canvases; got 0"),
        ([1.0, 2.0], "must score 1 canvases; got 2"),
        (["x"], "sends no nll_per_token: nll_per_token.0: Input should be a valid number; got 'x'"),
        ([None], "got None"),
        ([NAN], "should be a finite number; got nan"),
        ("1", "should be a valid list; got '1'"),
    ],
)
def test_scores_are_numbers_one_for_each_canvas(found, message):
    with pytest.raises(InfillerUnavailableError, match=message):
        read_scores({"nll_per_token": found}, 1, URL)


@pytest.mark.parametrize("found", [["ab"], [[]], [[0, 1, 2]], [[2, 1]], [[0, 9]], [[-1, 2]], [[0, True]], []])
def test_offsets_are_ranges_within_the_text(found):
    with pytest.raises(InfillerUnavailableError, match="offsets"):
        read_offsets({"offsets": found}, "Rate it.", URL)


@pytest.mark.parametrize("found", [True, -5, "3", 2.5])
def test_a_number_of_tokens_is_a_count(found):
    with pytest.raises(InfillerUnavailableError, match=rf"num_tokens: Input should be .*; got {found!r}"):
        read(Counted, {"num_tokens": found}, URL)


CARD = {
    "fingerprint": "toy", "context_length": 9, "cache": "window",
    "limits": {"canvases": 1, "new_tokens": 1, "body_bytes": 1},
}  # fmt: skip


@pytest.mark.parametrize(
    ("card", "message"),
    [
        (CARD | {"limits": {}}, "sends no limits: limits.canvases: Field required"),
        (CARD | {"limits": {"canvases": 0}}, "limits.canvases: Input should be greater than or equal to 1"),
        (CARD | {"context_length": True}, "context_length: Input should be a valid integer; got True"),
        (CARD | {"cache": "auto"}, "cache: Input should be 'exact', 'window' or 'context'; got 'auto'"),
        (7, "is no infiller: its answer lacks 'fingerprint'"),
    ],
)
def test_a_card_says_what_is_needed(card, message):
    assert read_card({"data": [CARD]}, URL).scorer is False
    with pytest.raises(InfillerUnavailableError, match=message):
        read_card({"data": [card]}, URL)
