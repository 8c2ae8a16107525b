"""The remote infiller over real HTTP, and how an infiller is found from what a user names."""

import asyncio
import copy
import json
import pickle
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from dspy_diffusion_infill.errors import (
    CanvasError,
    InfillerUnavailableError,
    MissingExtraError,
    ModelError,
    SettingsError,
)
from dspy_diffusion_infill.prompts.canvas import Canvas, Denoising, Infiller, Masked, Message
from dspy_diffusion_infill.serving import calling
from dspy_diffusion_infill.serving import connect as module
from dspy_diffusion_infill.serving.client import RemoteInfiller
from dspy_diffusion_infill.serving.connect import connect
from dspy_diffusion_infill.serving.retrying import seconds_to_wait
from dspy_diffusion_infill.serving.wire import canvas_to_json, denoising_to_json, requests_for
from tests.doubles import ScriptedInfiller

CANVAS = Canvas(
    (Message("system", ("Rate ", Masked(3), ".")), Message("user", ("hm",))),
    (Message("user", ("Bad.",)), Message("assistant", ("1",))),
)
BARE = Canvas((Message("system", (Masked(2, 5),)),))
LIMITS = {"canvases": 64, "new_tokens": 1000, "body_bytes": 100_000}


def read(canvas, context):
    """What a server makes of a canvas."""

    def part(piece):
        if isinstance(piece, str):
            return piece
        return Masked(*(piece["mask"] if isinstance(piece["mask"], list) else [piece["mask"]]))

    messages = (Message(m["role"], tuple(map(part, m["content"]))) for m in canvas["messages"])
    return Canvas(tuple(messages), tuple(Message.text(m["role"], m["content"]) for m in context))


class Server(ThreadingHTTPServer):
    """Serves a scripted infiller; first come what `broken` holds: statuses, headers and bodies, or None for a
    connection that is closed."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.infiller, self.broken, self.requests, self.keys = ScriptedInfiller("well", "ill"), [], [], []
        self.limits, self.scorer = dict(LIMITS), {"scorer": True}
        self.gate = threading.Barrier(1)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def answer(self, path, body):
        self.requests.append((path, body))
        if path == "/v1/models":
            card = {"fingerprint": "toy@1", "context_length": self.infiller.context_length, "cache": "window"}
            return {"data": [card | self.scorer | {"limits": self.limits}]}
        if path == "/v1/tokenize":
            if "text" in body:
                return {"offsets": self.infiller.offsets(body["text"])}
            return {"num_tokens": self.infiller.num_tokens(read(body["canvas"], body["context"]))}
        self.gate.wait(30)
        if path == "/v1/score":
            return {"nll_per_token": [len("".join(canvas["texts"])) / 2 for canvas in body["canvases"]]}
        canvases = [read(canvas, body["context"]) for canvas in body["canvases"]]
        found = self.infiller.infill(canvases, num_candidates=body["n"], seed=body["seed"])
        return {"fillings": [[asdict(filling) for filling in fillings] for fillings in found]}


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or "null")
        self.server.keys.append(self.headers.get("Authorization"))
        broken = self.server.broken.pop(0) if self.server.broken else (200, {}, None)
        if broken is None:
            return
        status, headers, text = broken
        text = json.dumps(self.server.answer(self.path, body)) if text is None else text
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
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


@pytest.fixture
def waits(monkeypatch):
    """No time passes between tries; how long it would have been."""
    found = []
    monkeypatch.setattr(calling.time, "sleep", found.append)
    return found


def test_a_remote_infiller_answers_as_the_served_one(server):
    with RemoteInfiller(server.url + "/", denoising=Denoising(temperature=0.1)) as remote:
        assert isinstance(remote, Infiller)
        assert remote.context_length == 10_000
        assert remote.offsets("Rate it.") == [(0, 4), (5, 8)]
        assert remote.offsets("") == []
        assert remote.num_tokens(CANVAS) == server.infiller.num_tokens(CANVAS)
        assert remote.infill([CANVAS, BARE, CANVAS], num_candidates=2, seed=7) == server.infiller.infill(
            [CANVAS, BARE, CANVAS], num_candidates=2, seed=7
        )
        assert remote.name == f"toy@1?{Denoising(temperature=0.1, cache='window')}"
    # one request for each context, each context once
    asked = server.infiller.canvases[:3]  # in the order in which the requests came
    assert asked in ([CANVAS, CANVAS, BARE], [BARE, CANVAS, CANVAS])
    sent = server.requests[-1][1]
    assert {name: sent[name] for name in ("temperature", "cache", "length")} == {
        "temperature": 0.1, "cache": "window", "length": "fixed"
    }  # fmt: skip
    assert server.keys == [None] * len(server.keys)


def test_for_await_it_answers_the_same(server):
    async def ask():
        async with RemoteInfiller(server.url) as remote:
            return await remote.ainfill([CANVAS, BARE], num_candidates=2, seed=7)

    assert asyncio.run(ask()) == server.infiller.infill([CANVAS, BARE], num_candidates=2, seed=7)
    assert asyncio.run(ask()) == asyncio.run(ask())  # in event loops of their own


def test_a_key_is_sent_with_every_request(server, monkeypatch):
    with RemoteInfiller(server.url, api_key="sesame") as remote:
        remote.offsets("x")
    monkeypatch.setenv("DIFFUSION_INFILL_API_KEY", "open")
    connect(server.url, Denoising()).close()
    assert server.keys == ["Bearer sesame", "Bearer sesame", "Bearer open"]


def test_what_is_too_large_for_one_request_is_divided(server):
    server.limits |= {"canvases": 3, "new_tokens": 12}
    canvases = [Canvas((Message("user", (Masked(n),)),)) for n in (1, 1, 1, 1, 4, 5, 20)]
    with RemoteInfiller(server.url) as remote:
        found = remote.infill(canvases, num_candidates=2, seed=1)
    assert found == server.infiller.infill(canvases, num_candidates=2, seed=1)
    asked = [body["canvases"] for path, body in server.requests if path == "/v1/infill"]
    assert sorted(map(len, asked)) == [1, 1, 2, 3]


def test_the_requests_of_one_call_are_under_way_together(server):
    """Canvases of four contexts are four requests; each is answered once all have come."""
    server.gate = threading.Barrier(4)
    canvases = [Canvas(CANVAS.messages, (Message.text("user", str(n)),)) for n in range(4)]
    with RemoteInfiller(server.url) as remote:
        found = remote.infill(canvases, num_candidates=1, seed=1)
        assert remote.nll_per_token(canvases, [["a" * n] for n in range(4)]) == [0.0, 0.5, 1.0, 1.5]
    assert found == server.infiller.infill(canvases, num_candidates=1, seed=1)


def test_scores_keep_their_order_when_they_are_asked_for_in_parts(server):
    server.limits |= {"canvases": 2}
    with RemoteInfiller(server.url) as remote:
        found = remote.nll_per_token([CANVAS, BARE, CANVAS, BARE, CANVAS], [["a" * n] for n in range(5)])
    assert found == [0.0, 0.5, 1.0, 1.5, 2.0]
    asked = [body for path, body in server.requests if path == "/v1/score"]
    assert sorted(len(body["canvases"]) for body in asked) == [1, 2, 2]
    assert {body["user"] for body in asked} == {asked[0]["user"]}
    texts = sorted(canvas["texts"] for body in asked for canvas in body["canvases"])
    assert texts == [["a" * n] for n in range(5)]


def test_long_texts_are_divided_among_requests():
    texts = [["ü" * 1000]] * 9
    parts = [body for _, body in requests_for([BARE] * 9, 1, {**LIMITS, "body_bytes": 25_000}, texts)]
    assert len(parts) == 3
    assert all(len(json.dumps(body)) < 25_000 for body in parts)


def test_a_server_that_does_not_score_canvases_is_named(server):
    server.scorer = {}
    message = r"must score canvases \(/v1/score\); it does not"
    with RemoteInfiller(server.url) as remote, pytest.raises(InfillerUnavailableError, match=message):
        remote.nll_per_token([CANVAS], [["x"]])
    assert "/v1/score" not in {path for path, _ in server.requests}


def test_bodies_are_no_longer_than_the_server_takes():
    canvases = [Canvas((Message("user", ("ü" * 1000, Masked(1))),), CANVAS.context) for _ in range(9)]
    parts = [body for _, body in requests_for(canvases, 1, {**LIMITS, "body_bytes": 25_000})]
    assert len(parts) == 3
    assert all(len(json.dumps(body)) < 25_000 for body in parts)


@pytest.mark.parametrize(
    "fault", [None, (429, {"Retry-After": "3"}, "{}"), (503, {}, "{}"), (500, {}, "lost"), (502, {}, "")]
)
def test_a_busy_server_is_asked_again(server, waits, fault):
    with RemoteInfiller(server.url) as remote:
        server.broken = [fault] * 3
        assert len(remote.infill([CANVAS], num_candidates=1, seed=0)) == 1
    assert len(waits) == 3
    if fault and fault[0] == 429:
        assert waits == [3.0] * 3
    else:
        assert waits[2] > waits[0]


def test_a_server_that_stays_busy_is_given_up(server, waits):
    with RemoteInfiller(server.url, retries=2) as remote:
        server.broken = [(503, {}, '{"error": {"message": "The server is stopping."}}')] * 9
        with pytest.raises(InfillerUnavailableError, match="503, The server is stopping"):
            remote.offsets("x")
    assert (len(server.broken), len(waits)) == (6, 2)


def test_waits_are_bounded():
    assert seconds_to_wait(30, None) <= 30.0
    assert seconds_to_wait(0, None) <= 0.5


def test_many_threads_may_ask_at_once(server):
    with RemoteInfiller(server.url) as remote, ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda n: remote.offsets("a " * n), range(16)))
    assert [len(one) for one in found] == list(range(16))


@pytest.mark.parametrize(
    ("broken", "error", "message"),
    [
        ((404, {}, "oops"), InfillerUnavailableError, r"/v1/infill sends no JSON \(status 404\)"),
        (
            (500, {"Content-Type": "application/json"}, '{"error": {"message": "oops"}}'),
            InfillerUnavailableError,
            "500, oops",
        ),
        ((200, {}, "[" * 100_000), InfillerUnavailableError, "/v1/infill sends no JSON"),
        ((200, {}, "<html>"), InfillerUnavailableError, "/v1/infill sends no JSON"),
        ((200, {}, "{}"), InfillerUnavailableError, "is no infiller: its answer lacks 'fillings'"),
        ((200, {}, "[]"), InfillerUnavailableError, "is no infiller: its answer lacks 'fillings'"),
        ((200, {}, '{"fillings": [[{}]]}'), InfillerUnavailableError, "sends no fillings"),
        ((200, {}, '{"fillings": []}'), InfillerUnavailableError, "must fill 1 canvases; got 0"),
        ((400, {}, '{"error": {"message": "too long"}}'), CanvasError, "refused the request: too long"),
        ((401, {}, '{"error": {"message": "no key"}}'), InfillerUnavailableError, "401, no key"),
    ],
)  # fmt: skip
def test_a_broken_answer_is_an_error_in_words(server, broken, error, message):
    with RemoteInfiller(server.url) as remote:
        server.broken = [broken]
        with pytest.raises(error, match=message):
            remote.infill([CANVAS], num_candidates=1, seed=0)


def test_an_answer_that_cannot_be_unpacked_is_none(server):
    server.broken = [(200, {"Content-Encoding": "gzip"}, "not packed")]
    with pytest.raises(
        InfillerUnavailableError, match=r"No infiller answers at .*: Error -3 while decompress"
    ):
        RemoteInfiller(server.url)


@pytest.fixture
def remote(server):
    with RemoteInfiller(server.url) as remote:
        yield remote


@pytest.mark.parametrize(
    "texts", [[], [["x"], ["y"]], ["x"], [[]], [["a", "b"]]], ids=["none", "two", "text", "empty", "many"]
)
def test_texts_that_are_not_one_for_each_masked_part_are_refused_as_in_one_process(remote, texts):
    with pytest.raises(CanvasError, match=r"texts must (be as many as canvases|hold one text for each)"):
        remote.nll_per_token([CANVAS], texts)


def test_half_of_a_surrogate_pair_is_refused_before_it_is_sent(remote):
    for ask in (remote.offsets, lambda text: remote.nll_per_token([CANVAS], [[text]])):
        with pytest.raises(CanvasError, match=r"must be UTF-8.*; got '\\ud800'"):
            ask("x\ud800")


def test_numbers_may_be_those_of_numpy_and_no_candidates_are_refused_as_in_one_process(server, remote):
    np = pytest.importorskip("numpy")
    found = remote.infill([CANVAS], num_candidates=np.int64(2), seed=np.int64(7))
    assert found == server.infiller.infill([CANVAS], num_candidates=2, seed=7)
    with pytest.raises(SettingsError, match="num_candidates must be at least 1; got 0"):
        remote.infill([CANVAS], num_candidates=0, seed=0)


def test_a_forked_process_opens_connections_of_its_own(remote, monkeypatch):
    remote.offsets("x")
    here = remote._caller._client()
    monkeypatch.setattr(calling.os, "getpid", lambda: -1)
    assert remote._caller._client() is not here
    assert remote.offsets("Rate it.") == [(0, 4), (5, 8)]


def test_closed_it_opens_connections_anew(remote):
    remote.close()
    assert remote.offsets("Rate it.") == [(0, 4), (5, 8)]


def test_copies_share_it_and_no_file_gets_its_key(remote):
    assert copy.deepcopy([remote])[0] is copy.copy(remote) is remote
    with pytest.raises(TypeError, match="cannot be pickled: its key would be written"):
        pickle.dumps(remote)


def test_an_event_loop_that_ended_leaves_no_connection_open(remote, monkeypatch):
    opened, real = [], httpx.AsyncClient
    monkeypatch.setattr(httpx, "AsyncClient", lambda **how: opened.append(real(**how)) or opened[-1])
    asyncio.run(remote.ainfill([CANVAS], num_candidates=1, seed=1))
    assert [client.is_closed for client in opened] == [True]


def test_a_proxy_is_not_asked_for_what_is_on_this_machine(server, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with RemoteInfiller(server.url, api_key="sesame") as remote:
        assert remote.context_length == 10_000


@pytest.mark.parametrize("key", ["sekret\n", "sek ret", "", "sekret\udc80", "\tsekret"])
def test_a_key_that_no_header_carries_is_refused_and_not_shown(server, key):
    with pytest.raises(SettingsError, match="api_key must have printable characters") as caught:
        RemoteInfiller(server.url, api_key=key)
    assert "sek" not in str(caught.value)


def test_a_key_may_have_letters_of_any_language(server):
    RemoteInfiller(server.url, api_key="schlüssel").close()
    assert server.keys == ["Bearer schlüssel".encode().decode("latin-1")]


def test_a_password_in_the_url_is_not_shown():
    with pytest.raises(InfillerUnavailableError) as caught:
        RemoteInfiller("http://me:sekret@127.0.0.1:9")
    assert str(caught.value).startswith("No infiller answers at http://127.0.0.1:9/v1/models: ")


def test_what_cannot_be_is_refused_at_construction(server):
    with pytest.raises(SettingsError, match="retries must be at least 0; got -1"):
        RemoteInfiller(server.url, retries=-1)
    with pytest.raises(SettingsError, match=r"url must be a text such as .*; got None"):
        RemoteInfiller(None)  # pyright: ignore[reportArgumentType]


def test_a_server_that_asks_for_a_key_is_not_called_absent(server, monkeypatch):
    monkeypatch.setenv("DIFFUSION_INFILL_URL", server.url)
    server.broken = [(401, {}, '{"error": {"message": "no key"}}')]
    with pytest.raises(InfillerUnavailableError, match="/v1/models: 401, no key"):
        connect(None, Denoising())


def test_a_server_without_a_model_is_no_infiller(server):
    server.broken = [(200, {}, '{"data": []}')]
    with pytest.raises(InfillerUnavailableError, match="is no infiller: its answer lacks 'fingerprint'"):
        RemoteInfiller(server.url)


def test_settings_that_are_not_set_are_not_sent():
    assert denoising_to_json(Denoising(steps=3)) == {
        "steps": 3, "temperature": 0.8, "guidance": 0.0, "remasking": "low_confidence", "length": "fixed",
        "cache": "auto",
    }  # fmt: skip
    assert canvas_to_json(BARE) == {"messages": [{"role": "system", "content": [{"mask": [2, 5]}]}]}


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://127.0.0.1:99999", "http://", "http://[::1"])
def test_an_unreachable_url_is_refused_at_construction(url):
    with pytest.raises(
        InfillerUnavailableError, match=re.escape(f"No infiller answers at {url.rstrip('/')}")
    ):
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
    assert connect(infiller, Denoising(num_candidates=2)) is infiller


def test_settings_that_an_infiller_object_would_not_heed_are_refused():
    with pytest.raises(
        SettingsError, match=r"num_candidates alone .* got .*steps=4.* on the ScriptedInfiller"
    ):
        connect(ScriptedInfiller("x"), Denoising(steps=4, num_candidates=2))


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
