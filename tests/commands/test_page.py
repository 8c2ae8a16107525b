"""The page on the command line: its examples run, one after the other, in an empty folder."""

import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dspy
import pytest

from dspy_diffusion_infill import cli
from tests.pages import DOCS, blocks

BLOCKS = [(block.language, block.code) for block in blocks(DOCS / "command-line.md", "bash", "python")]

ELSEWHERE = (["doctor", "--verify", "embedded"], ["demo", "--seed", "1"])
"""Run by test_doctor.py and tests/test_demo.py: they take long."""


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder; what the page's program configures is taken back."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setenv("DIFFUSION_INFILL_URL", "http://127.0.0.1:9")
    yield tmp_path
    sys.modules.pop("task", None)
    dspy.configure(lm=None, adapter=None)


@pytest.mark.slow
@pytest.mark.usefixtures("empty")
def test_every_example_runs(capsys: pytest.CaptureFixture[str]):
    ran = []
    for language, block in BLOCKS:
        if language == "python":
            exec(block, {})
            continue
        *before, command = block.splitlines()
        subprocess.run(["bash", "-euc", "\n".join(before)], check=True)
        _, *arguments = shlex.split(command)
        ran.append(arguments[0])
        if arguments not in ELSEWHERE:
            assert cli.run(arguments) == 0, (command, capsys.readouterr().err)
    assert ran == ["infill", "infill", "optimize", "report", "perplexity", "doctor", "demo", "train"]
    assert Path("tuned", "report.html").is_file()
    assert "Load it with\n  from task import program\n" in capsys.readouterr().out
