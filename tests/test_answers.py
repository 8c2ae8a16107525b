"""Answers of an infiller that breaks its obligations are told as that, by its name."""

import dataclasses
import threading

import dspy
import pytest

from dspy_diffusion_infill import Denoising, DiffusionInfill, Filling, Guard, Selection, Template
from dspy_diffusion_infill.errors import InfillError, SettingsError
from dspy_diffusion_infill.search.settings import plain_settings
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


@pytest.mark.parametrize("offsets", [None, "ab", ["ab"], [(0, 1, 2)], [(0.0, 1.0)], [(0, 999)], [(-1, 2)]])
def test_tokens_that_are_none_are_told_before_anything_is_spent(offsets):
    infiller = ScriptedInfiller("warm")
    infiller.offsets = lambda text: offsets
    with pytest.raises(InfillError, match=r"ScriptedInfiller.offsets must return a list of"):
        compile_with(infiller)
    assert not infiller.canvases


def test_a_class_is_no_infiller():
    with pytest.raises(SettingsError, match=r"infiller must be .* an Infiller; got <class"):
        compile_with(ScriptedInfiller)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Denoising(num_candidates="4"),
        lambda: Denoising(temperature="x"),
        lambda: Denoising(top_k=2.5),
        lambda: Template("{{mask:2}}", passes="2"),
        lambda: Guard(copied_words="3"),
        lambda: DiffusionInfill(exact, seed="x"),
        lambda: DiffusionInfill(exact, num_threads="2"),
    ],
)
def test_a_setting_of_another_type_is_refused(make):
    with pytest.raises(SettingsError, match=r"must be .*; got (2\.5|'.')"):
        make()


def test_a_url_is_reported_without_its_password():
    settings = plain_settings({"infiller": "http://ann:hunter2@127.0.0.1:8055/x", "metric": exact})
    assert settings["infiller"] == "http://127.0.0.1:8055/x"


@dataclasses.dataclass
class Keyed:
    key: str = "sk-hunter2"
    lock: object = dataclasses.field(default_factory=threading.Lock)

    def __call__(self, *arguments):
        return 1.0


def test_settings_name_what_may_hold_keys_and_locks_and_tell_nothing_of_it():
    selection = Selection(set_metric=Keyed().__call__)
    settings = plain_settings({"metric": Keyed(), "infiller": Keyed(), "selection": selection})
    assert (settings["metric"], settings["infiller"]) == ("Keyed", "Keyed")
    assert settings["selection.set_metric"] == "Keyed.__call__"
    assert "hunter2" not in str(settings)
