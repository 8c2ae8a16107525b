"""What a server may write: nothing but replies that are read, and every score of the scale."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.judges.constraint import reply_pattern
from dspy_diffusion_infill.judges.parse import Scale, read_reply, score_start, write_reply

FORMS = ("result", "line", "bare")
SCALES = (Scale(1, 5), Scale(0, 10), Scale(1, 3))


@settings(max_examples=40)
@given(st.data(), st.sampled_from(FORMS), st.sampled_from(SCALES))
def test_every_reply_that_is_allowed_is_read(data, form, scale):
    pattern = reply_pattern(scale, form).replace("1500", "30")  # shorter examples are found faster
    reply = data.draw(st.from_regex(pattern, fullmatch=True))
    score = read_reply(reply, scale, form).score
    assert scale.lowest <= score <= scale.highest
    assert float(reply[score_start(reply, form) :]) == score


@pytest.mark.parametrize("form", FORMS)
def test_every_score_can_be_written(form):
    pattern = re.compile(reply_pattern(Scale(0, 10), form))
    for score in (0, 1, 9, 10, 4.5, 9.25):
        assert pattern.fullmatch(write_reply("Apt.", score, form))
    for score in (11, 10.5, -1):
        assert not pattern.fullmatch(write_reply("Apt.", score, form))


def test_feedback_has_no_verdict_of_its_own_and_an_end():
    pattern = re.compile(reply_pattern(Scale(1, 5), "result"))
    assert not pattern.fullmatch("It says [RESULT] 5 there. [RESULT] 2")
    assert not pattern.fullmatch("[RESULT] 2")
    assert pattern.fullmatch("x" * 1500 + "[RESULT] 2")
    assert not pattern.fullmatch("x" * 1501 + "[RESULT] 2")


@pytest.mark.parametrize("scale", [Scale(-1, 5), Scale(0.5, 5), Scale(0, 101)])
def test_other_scales_are_refused(scale):
    with pytest.raises(SettingsError, match=re.escape(f"at most 100 apart; got {scale}.")):
        reply_pattern(scale, "bare")
