"""Commands that ask a server with a key: it is taken from DIFFUSION_INFILL_API_KEY."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dspy_diffusion_infill.cli import app
from dspy_diffusion_infill.errors import InfillerUnavailableError
from dspy_diffusion_infill.prompts.canvas import Denoising
from dspy_diffusion_infill.serving import connect
from dspy_diffusion_infill.serving.server import create_app
from tests.serving.conftest import live

TASK = """
import dspy
from tests.doubles import exact, obey, rule_lm

program = dspy.Predict(dspy.Signature("review -> rating", "Rate the text."))
program.lm = rule_lm(lambda system, user: "[[ ## rating ## ]]\\n" + obey(system, user))
"""


@pytest.fixture
def locked(embedded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a server with a key; the current folder holds a prompt, a program and data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("prompt.txt").write_text("Rate the text ({{mask:2}}).\n")
    Path("keyed_task.py").write_text(TASK)
    Path("train.jsonl").write_text('{"review": "1", "rating": "y1"}\n{"review": "2", "rating": "y2"}\n')
    opened: list[Any] = []
    remote = connect._remote

    def remembered(url: str, denoising: Denoising) -> Any:
        opened.append(remote(url, denoising))
        return opened[-1]

    monkeypatch.setattr(connect, "_remote", remembered)  # a command leaves closing to the end of its process
    with live(create_app(embedded, name="embedded", keys=["sesame"])) as url:
        yield url
    for one in opened:
        one.close()


OPTIMIZE = (
    "optimize", "keyed_task:program", "--metric", "keyed_task:exact", "--trainset", "train.jsonl",
    "--budget", "6", "--yes",
)  # fmt: skip


@pytest.mark.parametrize(
    "command", [("infill", "prompt.txt", "-n", "1"), OPTIMIZE], ids=["infill", "optimize"]
)
def test_a_command_sends_the_key_of_the_environment(locked, monkeypatch, command):
    line = [*command, "--infiller", locked, "--json"]
    refused = CliRunner().invoke(app, line)
    assert isinstance(refused.exception, InfillerUnavailableError)
    assert "401" in str(refused.exception)
    monkeypatch.setenv("DIFFUSION_INFILL_API_KEY", "sesame")
    done = CliRunner().invoke(app, line, catch_exceptions=False)
    assert done.exit_code == 0
    assert "sesame" not in done.output
    assert json.loads(done.stdout)
