"""`diffusion-infill serve` as a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from dspy_diffusion_infill import cli
from dspy_diffusion_infill.errors import SettingsError

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "example.org"])
def test_beyond_this_machine_a_key_is_needed(host):
    found = CliRunner().invoke(cli.app, ["serve", "--model", "embedded", "--host", host])
    assert isinstance(found.exception, SettingsError)
    assert f"host must be one of 127.0.0.1, localhost, ::1 without --api-key; got {host}" in str(
        found.exception
    )


def test_an_empty_key_is_no_key():
    found = CliRunner().invoke(cli.app, ["serve", "--model", "embedded", "--api-key", ""])
    assert "--api-key must not be empty" in str(found.exception)


@pytest.mark.parametrize("key", [" sesame", "sesame\n", "sesa me"])
def test_a_key_that_could_never_match_is_refused_and_not_shown(key):
    found = CliRunner().invoke(cli.app, ["serve", "--model", "embedded", "--api-key", key])
    assert str(found.exception).startswith("--api-key must have printable characters and no blanks")
    assert "sesa" not in str(found.exception)


@pytest.mark.parametrize("seconds", ["inf"])
def test_an_answer_may_not_take_for_ever(seconds):
    found = CliRunner().invoke(cli.app, ["serve", "--model", "embedded", "--max-seconds", seconds])
    assert str(found.exception) == f"--max-seconds must be finite; got {seconds}."


def started(*options):
    """A serving process, and its URL."""
    command = [
        sys.executable,
        "-m",
        "dspy_diffusion_infill.cli",
        "serve",
        "--model",
        "embedded",
        "--port",
        "0",
    ]
    process = subprocess.Popen(
        [*command, *options],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    for line in process.stderr:
        if found := re.search(r"Serving embedded at (\S+) ", line):
            return process, found[1]
    raise AssertionError(f"it ended with {process.wait()}")


@pytest.mark.slow
def test_told_to_stop_it_finishes_what_it_has_and_ends_well():
    process, url = started("--device", "cpu")
    body = {
        "model": "embedded",
        "messages": [{"role": "user", "content": "x"}],
        "max_tokens": 60,
    }
    answers = []

    def ask():
        answers.append(httpx.post(f"{url}/v1/chat/completions", json=body, timeout=300))

    thread = threading.Thread(target=ask)
    thread.start()
    while thread.is_alive() and "open_requests 1.0" not in httpx.get(f"{url}/metrics", timeout=60).text:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    thread.join()
    rest = process.communicate(timeout=120)[1]
    assert answers[0].json()["usage"]["completion_tokens"] >= 1
    assert (process.returncode, rest) == (0, "")
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/health")
