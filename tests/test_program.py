"""Programs are copied without copying their LMs, and instructions are set without touching the given ones."""

import threading

import dspy
import pytest

from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.prompts.program import (
    attach_reports,
    copy_program,
    instructions_of,
    with_instructions,
)
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


class Named(dspy.Module):
    """Has data of its own under the names of reports."""

    def __init__(self):
        super().__init__()
        self.trial_logs, self.candidate_programs = dspy.Predict(Rate), {"a": dspy.Predict(Rate)}
        self.load = lambda: setattr(self, "detailed_results", ["cached"])


def test_a_programs_own_data_under_the_name_of_a_report_are_copied():
    named = Named()
    named.load()
    copied = copy_program(named)
    assert copied.trial_logs is not named.trial_logs
    assert list(instructions_of(copied)) == list(instructions_of(named)) != []
    assert copied.detailed_results == ["cached"]


def test_reports_hide_nothing_of_the_programs_own():
    named = Named()
    own = dict(vars(named))
    attach_reports(named, {"trial_logs": [], "candidate_programs": [], "other_results": {}})
    assert vars(named) == {**own, "other_results": {}}


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


class Step(dspy.Module):
    """Holds what cannot be copied."""

    def __init__(self):
        super().__init__()
        self.rate, self.lock = dspy.Predict(Rate), threading.Lock()


class Tensor:
    def __deepcopy__(self, memo):
        raise RuntimeError("Only Tensors created explicitly by the user support the deepcopy protocol")


@pytest.mark.parametrize(
    "hold",
    [
        lambda step: [step],
        lambda step: (step,),
        lambda step: {"one": step},
        lambda step: [{"one": (step, [step])}],
        lambda step: [Tensor(), step],
    ],
)
def test_predictors_beside_what_cannot_be_copied_are_copied_wherever_they_are(hold):
    outer = dspy.Module()
    outer.steps = hold(Step())
    outer.first = next(outer.named_sub_modules(Step))[1]
    outer.first.rate.lm = rule_lm(obey)
    copied = copy_program(outer)
    assert copied.first.rate is not outer.first.rate
    assert copied.first.rate.lm is outer.first.rate.lm
    assert copied.first.lock is outer.first.lock
    assert [found for _, found in copied.named_sub_modules(Step)] == [copied.first]
    assert type(copied.steps) is type(outer.steps)
    assert copied.history == copied.first.history == []


def test_an_attribute_that_fails_to_be_copied_in_any_way_is_shared(pair):
    pair.tensor = Tensor()
    pair.tensors = {"a": [pair.tensor]}
    copied = copy_program(pair)
    assert copied.tensor is copied.tensors["a"][0]
    assert copied.tensors["a"] is not pair.tensors["a"]
    assert copied.first is not pair.first


def test_a_program_whose_predictors_would_be_shared_is_refused():
    outer = dspy.Module()
    outer.shared = type("Shared", (dspy.Predict,), {"__deepcopy__": lambda self, memo: self})(Rate)
    with pytest.raises(SettingsError, match=r"predictors must be .* got 'Rate it.' in something that"):
        copy_program(outer)


@pytest.mark.parametrize("value", [None, (), 0, "none", True])
def test_a_plain_attribute_with_a_reports_name_stays_and_stands_for_nothing_else(pair, value):
    pair.detailed_results = pair.limit = value
    pair.options = {"stop": value}
    copied = copy_program(pair)
    assert copied.detailed_results == copied.limit == copied.options["stop"] == value
    assert type(copied.limit) is type(value)
