"""The mean of the scores that a judge might have written."""

import math
from types import SimpleNamespace

import pytest

from dspy_diffusion_infill.errors import SettingsError, Unscored
from dspy_diffusion_infill.judges.expected import Token, check_scale, expected_score, read_tokens
from dspy_diffusion_infill.judges.parse import Scale

FIVE = Scale(1, 5)


def token(text: str, **likeliest: float) -> Token:
    """A token, with probabilities of the digits `_4=0.5`."""
    return Token(text, tuple((name[1:], math.log(share)) for name, share in likeliest.items()))


def test_scores_are_weighted_by_their_share_among_scores():
    # .2 of 2, .6 of 4 and .2 of something else: (2 * .2 + 4 * .6) / .8
    tokens = [token("Apt, in 3 words. "), token("[RESULT]"), token(" "), token("4", _2=0.2, _4=0.6, _x=0.2)]
    assert expected_score(tokens, FIVE, "result") == pytest.approx(3.5)


def test_what_is_off_the_scale_or_no_single_digit_does_not_count():
    tokens = [token("[RESULT] "), token("5", _0=0.3, _6=0.3, _55=0.1, _5=0.1, _3=0.1)]
    assert expected_score(tokens, FIVE, "result") == pytest.approx(4)
    assert expected_score(tokens, Scale(0, 9), "result") == pytest.approx((1.8 + 0.5 + 0.3) / 0.8)


def test_a_token_may_hold_what_stands_before_the_score():
    half, quarter = math.log(0.5), math.log(0.25)
    glued = Token("] 4", (("] 4", half), ("] 2", quarter), ("]", quarter), (" 3", -9.0)))
    assert expected_score([token("[RESULT"), glued], FIVE, "result") == pytest.approx(
        (2 + 0.5) / 0.75, abs=1e-3
    )


def test_the_score_of_other_forms_is_found():
    first = [token("4", _4=0.5, _5=0.5), token(" of 5", _1=1.0)]
    assert expected_score(first, FIVE, "bare") == pytest.approx(4.5)
    last = [token("In 2 words: apt.\n", _2=1.0), token("1", _1=0.5, _3=0.5)]
    assert expected_score(last, FIVE, "line") == pytest.approx(2)


def test_tokens_that_read_alike_add_up():
    # a digit, and its byte, which a constraint leaves among the likeliest: (4 * (.6 + .1) + 2 * .1) / .8
    shares = [("4", 0.6), ("2", 0.1), ("4", 0.1)]
    told = [{"token": text, "logprob": math.log(share)} for text, share in shares]
    tokens = read_tokens({"content": [{"token": "4", "top_logprobs": told}]})
    assert expected_score(tokens, FIVE, "bare") == pytest.approx(3.75)


def test_a_place_without_scores_is_unscored():
    with pytest.raises(Unscored, match="No score is among the likeliest tokens in place of '4'"):
        expected_score([token("[RESULT] "), token("4", _a=1.0)], FIVE, "result")
    with pytest.raises(Unscored, match="not among its tokens"):
        expected_score([token("[RESULT]")], FIVE, "result")


@pytest.mark.parametrize("logprob", [-9999.0, -math.inf, None])
def test_tokens_of_no_probability_are_unscored(logprob):
    with pytest.raises(Unscored, match="No score is among"):
        expected_score([Token("4", (("4", logprob),))], FIVE, "bare")


def test_noise_of_floats_breaks_no_tie_and_leaves_no_scale():
    # .1 of 2, .8 of 3 and .1 of 4 are 3.0000000000000004 thirds of what they add up to
    shares = [{"_2": share, "_3": 1 - 2 * share, "_4": share} for share in (0.1, 0.15, 0.3)]
    assert {expected_score([token("3", **each)], FIVE, "bare") for each in shares} == {3}


def test_the_score_is_taken_where_the_reply_is_read():
    one, five = token("1", _1=1.0), token("5", _5=1.0)
    quoted = [token("[RESULT] "), one, token('\nIt tried to add "[RESULT] '), five, token('" itself.')]
    assert expected_score(quoted, FIVE, "result") == 1
    mention = [
        token("Bad. [RESULT] "),
        five,
        token('\nThe format was "[RESULT] (between '),
        one,
        token(' and 5)".'),
    ]
    assert expected_score(mention, FIVE, "result") == 5


def test_logprobs_are_read_from_dictionaries_and_objects():
    inner = SimpleNamespace(token="4", logprob=-0.5)
    content = [SimpleNamespace(token="4", top_logprobs=[inner]), {"token": "!", "top_logprobs": None}]
    assert read_tokens(SimpleNamespace(content=content)) == [Token("4", (("4", -0.5),)), Token("!", ())]
    assert read_tokens(None) == read_tokens({"content": None}) == []


def test_scores_must_be_digits():
    check_scale(Scale(0, 9))
    for scale in (Scale(0, 10), Scale(0.5, 5), Scale(-1, 5)):
        with pytest.raises(SettingsError, match=f"needs a scale of single digits; got {scale}"):
            check_scale(scale)
