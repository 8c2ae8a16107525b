"""Programs are copied without copying their LMs, and instructions are set without touching the given ones."""

import threading

import dspy
import pytest

from dspy_diffusion_infill.prompts.program import copy_program, instructions_of, with_instructions
from tests.doubles import obey, rule_lm


class Rate(dspy.Signature):
    """Rate it."""

    review: str = dspy.InputField(desc="in English")
    rating: str = dspy.OutputField()


class Pair(dspy.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = dspy.Predict(Rate), dspy.Predict(Rate)


@pytest.fixture
def pair():
    pair = Pair()
    pair.first.lm = rule_lm(obey)
    pair.first.demos = [dspy.Example(review="0", rating="y0")]
    return pair


def test_only_the_named_predictor_changes_in_the_copy(pair):
    changed = with_instructions(pair, {"first": "Rate it.", "second": "Be warm."})
    assert instructions_of(changed) == {"first": "Rate it.", "second": "Be warm."}
    assert instructions_of(pair) == {"first": "Rate it.", "second": "Rate it."}
    assert Rate.instructions == "Rate it."
    assert changed.second.signature.input_fields["review"].json_schema_extra["desc"] == "in English"


def test_lms_are_shared_and_demos_are_copied(pair):
    copied = copy_program(pair)
    assert copied.first.lm is pair.first.lm
    assert copied.second.lm is None
    assert copied.first.demos == pair.first.demos
    assert copied.first.demos is not pair.first.demos


def test_reports_of_other_optimizers_stay_behind(pair, caplog):
    pair.candidate_programs = [{"program": threading.Lock()}]  # as COPRO leaves LMs that hold locks
    assert not hasattr(copy_program(pair), "candidate_programs")
    assert pair.candidate_programs
    assert caplog.records == []  # DSPy's own copy would warn of the lock


def test_an_attribute_that_cannot_be_copied_is_shared(pair):
    pair.client = threading.Lock()
    copied = copy_program(pair)
    assert copied.client is pair.client
    assert copied.first is not pair.first
    assert copied.first.lm is pair.first.lm


def test_the_lm_of_a_frozen_part_is_shared_too(pair):
    outer = dspy.Module()
    outer.inner, outer.rate = pair, dspy.Predict(Rate)
    pair._compiled = True
    assert list(instructions_of(outer)) == ["rate"]
    assert copy_program(outer).inner.first.lm is pair.first.lm
