"""Answers of an infiller that breaks its obligations are told as that, by its name."""

import dspy
import pytest

from dspy_diffusion_infill import Denoising, DiffusionInfill, Filling
from dspy_diffusion_infill.errors import InfillError, SettingsError
from tests.doubles import ScriptedInfiller, exact, obey, reviews, rule_lm

GOOD = Filling(("warm",), -1.0, 1)


class Odd(ScriptedInfiller):
    """Answers every canvas with the same, whatever was asked for."""

    def __init__(self, answer):
        super().__init__("")
        self.answer = answer

    def infill(self, canvases, *, num_candidates, seed):
        return self.answer


def compile_with(infiller):
    optimizer = DiffusionInfill(exact, infiller=infiller, denoising=Denoising(num_candidates=2))
    with dspy.context(lm=rule_lm(obey)):
        return optimizer.compile(dspy.Predict("review -> rating"), trainset=reviews())


@pytest.mark.parametrize(
    ("answer", "rule"),
    [
        (None, "a list for each of 1 canvases; got None"),
        ([], "a list for each of 1 canvases"),
        ([[GOOD, GOOD], [GOOD, GOOD]], "a list for each of 1 canvases"),
        (["ab"], "2 fillings a canvas; got 'ab'"),
        ([[GOOD]], "2 fillings a canvas"),
        ([[GOOD, "warm"]], "a Filling with a text for each of 1 masked parts; got 'warm'"),
        ([[GOOD, Filling(("a", "b"), -1.0, 1)]], "a text for each of 1 masked parts"),
        ([[GOOD, Filling("a", -1.0, 1)]], "a text for each of 1 masked parts"),
        ([[GOOD, Filling((3,), -1.0, 1)]], "a text for each of 1 masked parts"),
    ],
)
def test_fillings_that_are_none_stop_the_run_and_name_the_infiller(answer, rule):
    with pytest.raises(InfillError, match=rf"Odd\.infill must return .*{rule}"):
        compile_with(Odd(answer))


@pytest.mark.parametrize("offsets", [None, "ab", ["ab"], [(0, 1, 2)], [(0.0, 1.0)]])
def test_tokens_that_are_none_are_told_before_anything_is_spent(offsets):
    infiller = ScriptedInfiller("warm")
    infiller.offsets = lambda text: offsets
    with pytest.raises(InfillError, match=r"ScriptedInfiller.offsets must return a list of"):
        compile_with(infiller)
    assert not infiller.canvases


def test_a_class_is_no_infiller():
    with pytest.raises(SettingsError, match=r"infiller must be .* an Infiller; got <class"):
        compile_with(ScriptedInfiller)
