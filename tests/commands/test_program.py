"""The program, its optimizer and its LM, from their names."""

import sys
from pathlib import Path

import dspy
import pytest
from dspy.teleprompt import COPRO, LabeledFewShot

from dspy_diffusion_infill.commands.program import asked, find_base, find_program, loading
from dspy_diffusion_infill.errors import SettingsError

SOURCE = """
import dspy
program = dspy.Predict("review -> rating")
class Rate(dspy.Module):
    def __init__(self, tool="pen"):
        super().__init__()
        self.rate = dspy.Predict("review -> rating")
class Needy(dspy.Module):
    def __init__(self, tool): ...
def leave():
    raise SystemExit(0)
labelled = dspy.LabeledFewShot(k=2)
number = 3
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "named_task.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield
    sys.modules.pop("named_task", None)


def test_a_program_is_there_or_made():
    program, made = find_program("named_task:program")
    assert isinstance(program, dspy.Predict)
    assert not made
    program, made = find_program("named_task:Rate")
    assert [name for name, _ in program.named_predictors()] == ["rate"]
    assert made


def test_what_is_no_program_and_what_cannot_be_made_are_refused():
    with pytest.raises(SettingsError, match=r"program must be a dspy.Module, .*; named_task:number is 3"):
        find_program("named_task:number")
    with pytest.raises(
        SettingsError, match="named_task:Needy must make what is wanted without arguments; it rai"
    ):
        find_program("named_task:Needy")
    with pytest.raises(SettingsError, match=r"named_task:leave must make .*; it raises SystemExit: 0"):
        find_program("named_task:leave")


def test_a_base_is_an_optimizer_or_a_class_made_with_the_metric():
    assert find_base(None, len) is None
    base = find_base("dspy.teleprompt:COPRO", len)
    assert isinstance(base, COPRO)
    assert base.metric is len
    assert isinstance(find_base("named_task:labelled", len), LabeledFewShot)
    with pytest.raises(SettingsError, match=r"base must be an optimizer of DSPy, .*; named_task:number is 3"):
        find_base("named_task:number", len)
    with pytest.raises(SettingsError, match="dspy:LabeledFewShot must make what is wanted from metric alone"):
        find_base("dspy:LabeledFewShot", len)


def test_the_lm_is_the_named_one_or_the_programs_own():
    program, own = dspy.Predict("a -> b"), dspy.LM("openai/own")
    with asked(program, "openai/gpt-5.5-mini", "http://127.0.0.1:1/v1") as name:
        assert name == "openai/gpt-5.5-mini"
        assert dspy.settings.lm.kwargs["api_base"] == "http://127.0.0.1:1/v1"
    program.set_lm(own)
    with asked(program, None, None) as name:
        assert name == "openai/own"


def test_a_program_without_an_lm_is_refused_before_anything_is_spent():
    program = dspy.Predict("a -> b")
    with dspy.context(lm=None):
        with pytest.raises(SettingsError, match="lm must be named, with --lm"), asked(program, None, None):
            pass
        with (
            pytest.raises(SettingsError, match="got --api-base http://x alone"),
            asked(program, None, "http://x"),
        ):
            pass


def test_the_lines_that_load_a_program_are_python():
    program = dspy.Predict("a -> b")
    assert loading(program, "tasks.qa:Qa.best", made=True, file="t/program.json") == [
        "from tasks.qa import Qa",
        "program = Qa.best()",
        "program.load('t/program.json')",
    ]
    first, second = loading(program, "qa:programs.one", made=False, file="p")
    assert (first, second) == ("from qa import programs", "programs.one.load('p')")
    program.set_lm(dspy.LM("openai/own"))
    assert loading(program, "qa:it", made=False, file="p")[1] == "it.load('p', allow_unsafe_lm_state=True)"
