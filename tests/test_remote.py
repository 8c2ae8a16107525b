"""The remote infiller over real HTTP, and how an infiller is found from what a user names."""

import json
import threading
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from dspy_diffusion_infill.errors import (
    CanvasError,
    InfillerUnavailableError,
    MissingExtraError,
    ModelError,
    SettingsError,
)
from dspy_diffusion_infill.prompts.canvas import Canvas, Denoising, Filling, Infiller, Masked, Message
from dspy_diffusion_infill.serving import connect as module
from dspy_diffusion_infill.serving.client import RemoteInfiller
from dspy_diffusion_infill.serving.connect import connect
from dspy_diffusion_infill.serving.wire import (
    canvas_from_json,
    canvas_to_json,
    filling_from_json,
    filling_to_json,
)
from tests.doubles import ScriptedInfiller

CANVAS = Canvas(
    (Message("system", ("Rate ", Masked(3), ".")), Message("user", ("hm",))),
    (Message("user", ("Bad.",)), Message("assistant", ("1",))),
)


class Server(ThreadingHTTPServer):
    """Serves a scripted infiller, or `broken` instead: a status and a body."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.infiller, self.broken, self.requests = ScriptedInfiller("well", "with care"), None, []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def answer(self, path, body):
        self.requests.append((path, body))
        if path == "/health":
            return {"model": "toy@1", "context_length": self.infiller.context_length}
        if path == "/v1/tokenize":
            if "text" in body:
                return {"offsets": self.infiller.offsets(body["text"])}
            return {"num_tokens": self.infiller.num_tokens(canvas_from_json(body["canvas"]))}
        canvases = [canvas_from_json(canvas) for canvas in body["canvases"]]
        found = self.infiller.infill(canvases, num_candidates=body["num_candidates"], seed=body["seed"])
        return {"fillings": [[filling_to_json(filling) for filling in fillings] for fillings in found]}


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        answer = json.dumps(self.server.answer(self.path, json.loads(body or "null")))
        status, text = self.server.broken or (200, answer)
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    do_POST = do_GET  # noqa: N815

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_what_travels_is_the_same_on_both_sides():
    assert canvas_from_json(json.loads(json.dumps(canvas_to_json(CANVAS)))) == CANVAS
    filling = Filling(("a", "b"), -1.25, 8)
    assert filling_from_json(json.loads(json.dumps(filling_to_json(filling)))) == filling


def test_a_remote_infiller_answers_as_the_served_one(server):
    with RemoteInfiller(server.url + "/", denoising=Denoising(temperature=0.1)) as remote:
        assert isinstance(remote, Infiller)
        assert remote.context_length == 10_000
        assert remote.offsets("Rate it.") == [(0, 4), (5, 8)]
        assert remote.num_tokens(CANVAS) == server.infiller.num_tokens(CANVAS)
        assert remote.infill([CANVAS, CANVAS], num_candidates=2, seed=7) == server.infiller.infill(
            [CANVAS, CANVAS], num_candidates=2, seed=7
        )
        assert remote.name == f"toy@1?{Denoising(temperature=0.1)}"
    assert server.infiller.canvases[0] == CANVAS
    sent = server.requests[-1][1]["denoising"]
    assert {**sent, "num_candidates": 8} == asdict(Denoising(temperature=0.1))


@pytest.mark.parametrize(
    ("broken", "error", "message"),
    [
        ((500, "oops"), InfillerUnavailableError, "No infiller answers at .*/v1/infill.*500"),
        ((200, "<html>"), InfillerUnavailableError, "/v1/infill sends no JSON"),
        ((200, "{}"), InfillerUnavailableError, "is no infiller: its answer lacks 'fillings'"),
        ((422, "too long"), CanvasError, "/v1/infill refused the request: too long"),
    ],
)
def test_a_broken_answer_is_an_error_in_words(server, broken, error, message):
    with RemoteInfiller(server.url) as remote:
        server.broken = broken
        with pytest.raises(error, match=message):
            remote.infill([CANVAS], num_candidates=1, seed=0)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://127.0.0.1:99999", "http://"])
def test_an_unreachable_url_is_refused_at_construction(url):
    with pytest.raises(InfillerUnavailableError, match=f"No infiller answers at {url.rstrip('/')}"):
        RemoteInfiller(url)


def test_no_name_means_the_served_model(server, monkeypatch):
    monkeypatch.setenv("DIFFUSION_INFILL_URL", server.url)
    with connect(None, Denoising()) as found:
        assert found.url == server.url
    with connect(server.url, Denoising(temperature=0.5)) as found:
        assert "temperature=0.5" in found.name


def test_without_a_served_model_the_choices_are_named(monkeypatch):
    monkeypatch.setattr(module, "DEFAULT_URL", "http://127.0.0.1:9")
    with pytest.raises(InfillerUnavailableError) as caught:
        connect(None, Denoising())
    for choice in (
        "http://127.0.0.1:9",
        "diffusion-infill serve",
        "infiller='path or hub id'",
        "infiller='embedded'",
    ):
        assert choice in str(caught.value)


def test_an_infiller_is_taken_as_it_is():
    infiller = ScriptedInfiller("x")
    assert connect(infiller, Denoising()) is infiller


def test_a_path_without_a_model_is_refused(tmp_path):
    pytest.importorskip("torch")
    with pytest.raises(ModelError, match=str(tmp_path / "none")):
        connect(tmp_path / "none", Denoising())
    with pytest.raises(ModelError, match=r"config\.json"):
        connect(str(tmp_path), Denoising())


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'dspy-diffusion-infill\[engine\]'"):
        connect("some/model", Denoising())


def test_anything_else_is_refused():
    with pytest.raises(
        SettingsError, match="infiller must be None, a URL, a path, a hub id or an Infiller; got 7"
    ):
        connect(7, Denoising())
