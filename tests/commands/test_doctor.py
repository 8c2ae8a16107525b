"""`diffusion-infill doctor`: what there is, what is missing, and a checkpoint tried out."""

import json
import os
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from typer.testing import CliRunner

from dspy_diffusion_infill.cli import app
from dspy_diffusion_infill.commands import doctor as command
from dspy_diffusion_infill.commands import surroundings
from dspy_diffusion_infill.engine import probe
from dspy_diffusion_infill.engine.verify import Check

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """What a server on loopback answers to everything."""
    body = {"text": b'{"data": [{"id": "llada", "fingerprint": "llada@1"}]}'}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/v1/models" else 404)
            self.end_headers()
            self.wfile.write(body["text"])

        def log_message(self, *said):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("DIFFUSION_INFILL_URL", f"http://127.0.0.1:{server.server_port}/")
    yield body
    server.shutdown()
    server.server_close()


def ran(*options: str):
    return CliRunner().invoke(app, ["doctor", *options], catch_exceptions=False)


def test_it_names_versions_devices_and_the_served_model(answer: dict[str, bytes]):
    found = json.loads(ran("--json").stdout)
    assert found["versions"]["torch"] == metadata.version("torch")
    assert found["devices"][0]["device"] == "cpu"
    assert found["devices"][0]["memory"] > 1e8
    assert found["server"]["model"] == "llada (llada@1)"
    assert not found["server"]["url"].endswith("/")
    assert found["checks"] == []
    assert f"{found['server']['url']:<22} serves llada (llada@1)" in ran().stdout


@pytest.mark.parametrize("text", [b"hello", b"[]", b'{"status": "up"}'])
def test_what_is_no_infiller_is_told_from_one(answer: dict[str, bytes], text: bytes):
    answer["text"] = text
    assert surroundings.served()["error"] == "what answers is no infiller"


def test_a_proxy_is_not_asked_for_what_is_on_this_machine(
    answer: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    answer["text"] = b"[]"
    assert surroundings.served()["error"] == "what answers is no infiller"


def test_no_server_is_no_failure(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DIFFUSION_INFILL_URL", "http://127.0.0.1:9")
    done = ran()
    assert done.exit_code == 0
    assert "http://127.0.0.1:9     no served model: " in done.stdout


@pytest.mark.parametrize("key", ["hunter2\r", "hunter2\u20ac"])
def test_a_key_that_cannot_be_sent_is_not_shown(
    answer: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, key: str
):
    monkeypatch.setenv("DIFFUSION_INFILL_API_KEY", key)
    found = surroundings.served()
    assert "hunter2" not in str(found)
    assert "look at DIFFUSION_INFILL_URL and DIFFUSION_INFILL_API_KEY" in str(found["error"])


@pytest.mark.parametrize("user", ["http://ann:hunter2@", "http://ann:p/hunter2@", "ann:hunter2@"])
def test_a_password_in_the_url_is_not_shown(monkeypatch: pytest.MonkeyPatch, user: str):
    monkeypatch.setenv("DIFFUSION_INFILL_URL", f"{user}127.0.0.1:9")
    found = surroundings.served()
    assert "hunter2" not in str(found)
    assert str(found["url"]).endswith("127.0.0.1:9")
    assert found["error"] != "what answers is no infiller"


def test_a_refusal_is_said_without_the_url(answer: dict[str, bytes], monkeypatch: pytest.MonkeyPatch):
    url = os.environ["DIFFUSION_INFILL_URL"].replace("//", "//ann:hunter2@")
    monkeypatch.setenv("DIFFUSION_INFILL_URL", f"{url}elsewhere")
    assert surroundings.served()["error"] == "it answers with HTTP status 404"


def test_every_extra_is_read_with_those_within_it():
    extras = PROJECT["optional-dependencies"]
    needs = [f"{text} ; extra == '{extra}'" for extra, texts in extras.items() for text in texts]

    def names(extra: str) -> set[str]:
        parts = [Requirement(text) for text in extras[extra]]
        within = [names(inner) for part in parts if part.name == PROJECT["name"] for inner in part.extras]
        return {part.name for part in parts if part.name != PROJECT["name"]}.union(*within)

    for extra in surroundings.PURPOSES:
        assert set(surroundings._names(needs, extra)) == names(extra)
    assert "typer" in surroundings._names(needs, "serve")


def test_what_an_extra_lacks_is_said_with_how_to_install_it(monkeypatch: pytest.MonkeyPatch):
    needs = ['torch>=2; extra == "engine"', 'no-such-thing; extra == "engine"', 'typer; extra == "cli"']
    monkeypatch.setattr(metadata, "requires", lambda name: needs)
    lacking = {extra: names for extra, names in surroundings.missing().items() if names}
    assert lacking == {"engine": ["no-such-thing"]}
    assert "pip install 'dspy-diffusion-infill[engine]'   lacks no-such-thing" in ran().stdout


def test_a_failed_check_is_the_exit_code_and_a_doubtful_one_is_not(monkeypatch: pytest.MonkeyPatch):
    verdicts = iter(["doubtful", "failed"])
    monkeypatch.setattr(command, "_verify", lambda source, as_json: [Check("rows", next(verdicts), "why")])
    doubtful, failed = ran("--verify", "x"), ran("--verify", "x", "--json")
    assert doubtful.exit_code == 0
    assert "doubtful rows           why" in doubtful.stdout
    assert failed.exit_code == 1
    assert json.loads(failed.stdout)["checks"] == [{"name": "rows", "verdict": "failed", "detail": "why"}]


@pytest.mark.slow
def test_the_embedded_model_passes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DIFFUSION_INFILL_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(
        probe, "INSTRUCTIONS", "Rate the review: answer with one number from 1 to 5, no more."
    )
    done = ran("--verify", "embedded", "--json")
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert list(checks) == [
        "loads", "ids", "shapes", "rows", "both sides", "cache modes", "end of text", "sample infill"
    ]  # fmt: skip
    assert {check["verdict"] for check in checks.values()} == {"fine"}, checks
    assert "embedded@" in checks["loads"]["detail"]
    assert done.exit_code == 0
