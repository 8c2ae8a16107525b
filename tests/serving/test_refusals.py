"""Everything that can be wrong with a request: a 4xx that says what, and a server that goes on."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser

import httpx
import pytest

from dspy_diffusion_infill.errors import InfillerUnavailableError
from dspy_diffusion_infill.serving.client import RemoteInfiller
from dspy_diffusion_infill.serving.limits import Limits
from dspy_diffusion_infill.serving.server import create_app
from tests.serving.conftest import live

JSON = {"content-type": "application/json"}
MESSAGES = [{"role": "system", "content": ["Rate", {"mask": 2}, "."]}]
CANVAS = {"messages": MESSAGES}


@pytest.fixture(scope="module")
def small(tiny):
    """A server with a key and tight limits."""
    limits = Limits(body_bytes=8000, requests=4, requests_per_client=2, new_tokens=100, arrival_s=0.5)
    with live(
        create_app(tiny, name="tiny", keys=["sesame", "schlüssel", "voilà"], limits=limits), idle_s=1
    ) as found:
        yield found


@pytest.fixture
def client(small):
    with httpx.Client(base_url=small, headers={"authorization": "Bearer sesame"}, timeout=60) as client:
        yield client


def said(answer, status):
    """The message of an error in OpenAI's shape."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "code", "param"}
    assert error["type"] == "invalid_request_error"
    return error["message"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "canvases: Field required."),
        ({"canvases": []}, "canvases: List should have at least 1 item"),
        ({"canvases": [CANVAS] * 65}, "canvases: List should have at most 64 items"),
        ({"canvases": [{"messages": []}]}, "canvases.0.messages: List should have at least 1 item"),
        (
            {"canvases": [{"messages": [{"role": "user", "content": "Rate."}]}]},
            "A canvas must hold at least one masked part; got none.",
        ),
        (
            {"canvases": [{"messages": [{"role": "user", "content": [{"mask": 10_000}]}]}]},
            "Mask tokens times n must be at most 100 in one request; got 10000.",
        ),
        (
            {"canvases": [{"messages": [{"role": "user", "content": [{"mask": 0}]}]}]},
            "canvases.0.messages.0.content.0.mask: Input should be greater than or equal to 1.",
        ),
        (
            {"canvases": [{"messages": [{"role": "user", "content": [{"mask": [9, 4]}]}]}]},
            "most must be at least num_tokens, 9; got 4.",
        ),
        (
            {"canvases": [{"messages": [{"role": "user", "content": ["x " * 80, {"mask": 70}]}]}]},
            "A canvas must have at most 128 tokens, the model's context; got ",
        ),
        (
            {"canvases": [{"messages": [{"role": "user", "content": ["x " * 140, {"mask": [4, 12]}]}]}]},
            "A canvas must have at most 128 tokens, the model's context; got ",
        ),
        (
            {
                "canvases": [{"messages": [{"role": "user", "content": ["x " * 140, {"mask": 4}]}]}],
                "length": "adaptive",
            },
            "A canvas must have at most 128 tokens, the model's context; got ",
        ),
        (
            {"canvases": [{"messages": [{"role": "user", "content": [{"mask": 60}]}]}], "length": "adaptive"},
            "Mask tokens times n must be at most 100 in one request; got 120.",
        ),
        ({"canvases": [{"messages": [{"role": "tool", "content": "x"}]}]}, "role: Input should be 'system'"),
        ({"canvases": [CANVAS], "temperature": "hot"}, "temperature: Input should be a valid number."),
        ({"canvases": [CANVAS], "temperature": -1}, "temperature: Input should be greater than or"),
        ({"canvases": [CANVAS], "n": 1.5}, "n: Input should be a valid integer."),
        ({"canvases": [CANVAS], "n": True}, "n: Input should be a valid integer."),
        ({"canvases": [CANVAS], "cache": "none"}, "cache: Input should be 'auto', 'exact', 'window' or"),
        ({"canvases": [CANVAS], "num_candidates": 2}, "num_candidates: Extra inputs are not permitted."),
        ({"canvases": [CANVAS], "context": MESSAGES}, "context.0.content: Input should be a valid string."),
        ({"canvases": [CANVAS], "model": "gpt"}, "model must be 'tiny'; got 'gpt'."),
        ([], "body: Input should be a valid dictionary"),
    ],
)  # fmt: skip
def test_a_body_that_asks_for_what_cannot_be_is_told_so(client, body, message):
    assert message in said(client.post("/v1/infill", json=body), 404 if "'gpt'" in message else 400)


def test_masks_are_limited_where_they_are_counted_too(client):
    many = {"messages": [{"role": "user", "content": [{"mask": 60}, {"mask": 60}]}]}
    message = said(client.post("/v1/tokenize", json={"canvas": many}), 400)
    assert message == "Mask tokens times n must be at most 100 in one request; got 120."


GOOD = b'{"canvases": [' + json.dumps(CANVAS).encode() + b"], "


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "body: Field required."),
        (b'{"canvases": [', "The body must be JSON; character 14: Expecting value."),
        (GOOD + b'"temperature": NaN}', "temperature: Input should be a finite number."),
        (GOOD + b'"temperature": 1e999}', "temperature: Input should be a finite number."),
        (GOOD + b'"seed": 1e999}', "seed: Input should be a"),
        (GOOD + b'"seed": ' + b"9" * 1000 + b"}", "seed: Input should be less than"),
        (GOOD + b'"user": "\\ud800"}', "user: Input should be a valid string"),
        (b"\xff\xfe{}", "body"),
        (b"[" * 1900, "body"),
    ],
)
def test_what_is_no_proper_json_is_told_so(client, content, message):
    answer = client.post("/v1/infill", content=content, headers=JSON)
    assert message in said(answer, 400)
    assert answer.json()["error"]["code"] == "invalid_request"


@pytest.mark.parametrize(
    "path", ["/v1/infill", "/v1/score", "/v1/tokenize", "/v1/chat/completions", "/v1/completions"]
)
def test_every_path_refuses_what_it_does_not_know(client, path):
    said(client.post(path, json={"surprise": 1}), 400)
    said(client.get(path), 405)
    assert "application/json" in said(
        client.post(path, content="{}", headers={"content-type": "text/plain"}), 415
    )


def test_a_path_that_is_not_there_is_told_so(client):
    assert said(client.get("/v2"), 404) == "GET /v2: Not Found."


def test_a_name_with_slashes_is_a_name(client):
    assert said(client.get("/v1/models/some/model"), 404) == "model must be 'tiny'; got 'some/model'."


def test_a_body_too_large_is_refused_by_what_it_declares_and_by_what_it_is(client, small):
    assert "at most 8000 bytes" in said(client.post("/v1/infill", content=b" " * 8001, headers=JSON), 413)
    pieces = (b" " * 2000 for _ in range(5))
    assert "at most 8000 bytes" in said(client.post("/v1/infill", content=pieces, headers=JSON), 413)
    host, port = small.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as raw:
        raw.sendall(
            b"POST /v1/infill HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sesame\r\n"
            b"Content-Type: application/json\r\nContent-Length: 99999999999\r\n\r\n"
        )
        assert b" 413 " in raw.recv(100)  # before a byte of the body


@pytest.mark.parametrize(
    "header",
    [None, "Bearer", "Bearer sesam", "Bearer sesame2", "Basic sesame", "sesame", "Bearer \xff"],
)
def test_without_the_right_key_nothing_but_health_is_answered(small, header):
    headers = {} if header is None else {"authorization": header.encode("latin-1")}
    for path in ("/v1/models", "/metrics", "/docs", "/openapi.json", "/nothing"):
        answer = httpx.get(small + path, headers=headers, timeout=60)
        assert "must hold a key" in said(answer, 401)
        assert answer.headers["www-authenticate"] == "Bearer"
    assert httpx.get(f"{small}/health", headers=headers, timeout=60).json() == {"status": "ok"}


def test_any_of_the_keys_opens(small):
    for key in ("sesame", "schlüssel", "voilà"):
        assert httpx.get(
            f"{small}/v1/models", headers={"authorization": f"bearer {key}".encode()}, timeout=60
        ).is_success
    with pytest.raises(
        InfillerUnavailableError, match="401, The header 'Authorization: Bearer KEY' must hold"
    ):
        RemoteInfiller(small)
    with RemoteInfiller(small, api_key="sesame") as remote:
        assert remote.context_length == 128


def test_without_keys_only_a_loopback_host_is_answered(url):
    for host in ("evil.example", "evil.example:8011", "127.0.0.1.evil.example", "[::2]:80", ""):
        said(httpx.get(f"{url}/v1/models", headers={"host": host}, timeout=60), 403)
    for host in ("localhost", "127.0.0.1:1", "[::1]:80", "LOCALHOST:8011"):
        assert httpx.get(f"{url}/v1/models", headers={"host": host}, timeout=60).is_success


def test_more_requests_than_there_are_places_are_told_when_to_come_again(small, client, monkeypatch):
    begun, go = threading.Semaphore(0), threading.Event()
    from dspy_diffusion_infill.serving.service import Service

    tokenize = Service.tokenize
    monkeypatch.setattr(Service, "tokenize", lambda *a: (begun.release(), go.wait(30), tokenize(*a))[2])
    with ThreadPoolExecutor(2) as pool:
        under_way = [pool.submit(client.post, "/v1/tokenize", json={"text": "x"}) for _ in range(2)]
        for _ in under_way:
            assert begun.acquire(timeout=30)
        refused = client.post("/v1/tokenize", json={"text": "x"})
        go.set()
        assert [one.result().status_code for one in under_way] == [200, 200]
    assert "as many as it may" in said(refused, 429)
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert client.post("/v1/tokenize", json={"text": "x"}).is_success


def test_a_client_that_leaves_frees_its_place(small, client):
    for _ in range(6):
        with contextlib.suppress(httpx.ReadTimeout):
            client.post("/v1/infill", json={"canvases": [CANVAS] * 40}, timeout=httpx.Timeout(60, read=0.001))
    deadline = time.monotonic() + 120
    while "open_requests 0.0" not in client.get("/metrics").text and time.monotonic() < deadline:
        time.sleep(0.1)
    assert client.post("/v1/infill", json={"canvases": [CANVAS]}).is_success


def closes_within(address, sent, seconds):
    """How long a connection stays open that sends this and no more; and what came back."""
    host, port = address.removeprefix("http://").split(":")
    started, came = time.monotonic(), b""
    with socket.create_connection((host, int(port)), timeout=seconds) as raw:
        raw.sendall(sent)
        while piece := raw.recv(1000):
            came += piece
    return time.monotonic() - started, came


HEAD = (
    b"POST /v1/infill HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sesame\r\n"
    b"Content-Type: application/json\r\n"
)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", b""),
        (b"GET /health HT", b""),
        (b"GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /heal", b" 200 "),
        (HEAD + b"Content-Length: 10\r\n\r\n{", b" 408 "),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n", b" 408 "),
    ],
)
def test_connections_that_send_no_whole_request_are_closed(small, impatient, sent, status):
    seconds, came = closes_within(small, sent, 30)
    assert status in came
    assert seconds >= 0.4


def test_a_request_that_takes_long_to_answer_is_not_cut_off(small, client, impatient, monkeypatch):
    from dspy_diffusion_infill.serving.service import Service

    tokenize = Service.tokenize
    monkeypatch.setattr(Service, "tokenize", lambda *a: (time.sleep(2 * impatient), tokenize(*a))[1])
    assert client.post("/v1/tokenize", json={"text": "Rate"}).json()["num_tokens"] == 1


def test_an_answer_that_takes_too_long_is_given_up(tiny, monkeypatch):
    limits = Limits(seconds=0.2)
    with live(create_app(tiny, name="tiny", limits=limits)) as slow:
        body = {
            "canvases": [{"messages": [{"role": "user", "content": [{"mask": 100}]}]}] * 20,
            "cache": "exact",
        }
        answer = httpx.post(f"{slow}/v1/infill", json=body, timeout=60)
        assert answer.status_code == 504
        assert answer.json()["error"]["message"].startswith("The answer took longer than 0.2 seconds")
        assert "open_requests 0.0" in httpx.get(f"{slow}/metrics", timeout=60).text


def test_neither_keys_nor_texts_are_logged(small, client, capfd, caplog):
    caplog.set_level(0)
    client.post("/v1/tokenize", json={"text": "confidential"})
    client.post("/v1/tokenize", json={"text": "confidential", "canvas": "confidential"})
    client.post("/v1/infill", content=b'{"confidential', headers=JSON)
    with httpx.Client(base_url=small, timeout=60) as stranger:
        stranger.get("/v1/models", headers={"authorization": "Bearer confidential"})
    logged = [r for r in caplog.records if not r.name.startswith(("httpx", "httpcore"))]
    out = "".join(capfd.readouterr()) + "".join(record.getMessage() for record in logged)
    assert "confidential" not in out
    assert "sesame" not in out


class Links(HTMLParser):
    """Everything that a page would fetch."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found += [value for name, value in attrs if name in ("src", "href") and tag != "a"]
        assert tag != "script"


def test_the_page_of_the_api_names_every_path_and_fetches_nothing(url):
    page, document = (
        httpx.get(f"{url}/docs", timeout=60).text,
        httpx.get(f"{url}/openapi.json", timeout=60).json(),
    )
    links = Links()
    links.feed(page)
    assert links.found == []
    assert "http" not in page.replace(url, "").replace("http-equiv", "")
    for path in document["paths"]:
        assert path in page
    assert f"curl {url}/v1/infill " in page


def test_the_openapi_document_says_what_errors_look_like(url):
    document = httpx.get(f"{url}/openapi.json", timeout=60).json()
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert "422" not in operation["responses"], path
            assert {"401", "413"} <= operation["responses"].keys()
            at_work = {"400", "429"} & operation["responses"].keys()
            assert at_work == ({"400", "429"} if "requestBody" in operation else set()), path
    assert "HTTPValidationError" not in json.dumps(document)
