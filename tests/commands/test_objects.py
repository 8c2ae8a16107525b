"""`module:object`, from the current folder, and what is said when it is not there."""

import importlib
import sys
from pathlib import Path

import pytest

from dspy_diffusion_infill.commands.objects import find_object
from dspy_diffusion_infill.errors import SettingsError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder, whose modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_an_object_is_found_from_the_current_folder(here: Path):
    (here / "found_qa.py").write_text("class Tasks:\n    @staticmethod\n    def exact(): return 3\n")
    (here / "found_tasks").mkdir()
    (here / "found_tasks" / "deep.py").write_text("program = 7\n")
    assert find_object("found_qa:Tasks.exact", option="metric")() == 3
    assert find_object("found_tasks.deep:program", option="program") == 7
    assert sys.path[0] == str(here)


@pytest.mark.parametrize("place", ["qa", "qa:", ":program", "qa.py:program", "tasks/qa:program", "qa:a b"])
def test_what_does_not_read_module_object_is_refused(place: str):
    with pytest.raises(SettingsError, match=f"program must read module:object.*; got '{place}'"):
        find_object(place, option="program")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "x = 1\nimport no_such_thing\n",
            r"'found_bad' raises ModuleNotFoundError: No module named 'no_such_thing'",
        ),
        ("x = 1\ny = x / 0\n", r"ZeroDivisionError: division by zero \(.*found_bad.py, line 2\)\."),
        ("import sys\nsys.exit(0)\n", r"raises SystemExit: 0 \(.*found_bad.py, line 2\)\."),
        ("x = (\n", r"SyntaxError: '\(' was never closed \(found_bad.py, line 1\)\.$"),
    ],
)
def test_a_module_that_does_not_import_says_why_and_where(here: Path, source: str, message: str):
    (here / "found_bad.py").write_text(source)
    with pytest.raises(SettingsError, match=message):
        find_object("found_bad:program", option="program")


def test_a_module_that_is_not_there_names_no_line_of_ours():
    with pytest.raises(SettingsError, match=r"ModuleNotFoundError: No module named 'found_nowhere'\.$"):
        find_object("found_nowhere:program", option="program")


@pytest.mark.parametrize("file", ["pprint.py", "time/__init__.py"])
def test_a_module_that_python_has_loaded_from_elsewhere_is_not_taken_for_ones_own(here: Path, file: str):
    name = file.removesuffix(".py").removesuffix("/__init__")
    importlib.import_module(name)
    (here / file).parent.mkdir(exist_ok=True)
    (here / file).write_text("program = 1\n")
    with pytest.raises(SettingsError, match=rf"got '{name}', and another .* loaded already. Rename .*{file}"):
        find_object(f"{name}:program", option="program")


def test_a_misspelt_object_gets_a_hint(here: Path):
    (here / "found_near.py").write_text("program = 1\n")
    with pytest.raises(SettingsError, match=r"it has no 'progam'. Did you mean 'program'?"):
        find_object("found_near:progam", option="program")
