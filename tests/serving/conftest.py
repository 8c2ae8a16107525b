"""Fixtures: live servers on loopback, of the embedded model and of a tiny random one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from dspy_diffusion_infill.engine.model import TextModel, load
from dspy_diffusion_infill.serving import connection
from dspy_diffusion_infill.serving.connection import PunctualProtocol
from dspy_diffusion_infill.serving.server import create_app
from tests.engine.checkpoints import write_llama_shaped


@contextmanager
def live(app: FastAPI, idle_s: int = 5) -> Iterator[str]:
    """Serve an app from a thread, on a free port; gives its URL. Idle connections are closed in time."""
    config = uvicorn.Config(
        app, port=0, http=PunctualProtocol, ws="none", log_level="error", timeout_keep_alive=idle_s,
        timeout_graceful_shutdown=10,
    )  # fmt: skip
    server = uvicorn.Server(config)
    socket = config.bind_socket()
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[socket])))
    thread.start()
    url = f"http://127.0.0.1:{socket.getsockname()[1]}"
    try:
        with httpx.Client(transport=httpx.HTTPTransport(retries=20), timeout=120) as client:
            assert client.get(f"{url}/health").json() == {"status": "ok"}
        yield url
    finally:
        server.should_exit = True
        thread.join()
        socket.close()


@pytest.fixture(scope="session")
def embedded() -> TextModel:
    return load("embedded", device="cpu")


@pytest.fixture(scope="session")
def url(embedded: TextModel) -> Iterator[str]:
    """Of a server of the embedded model, without a key."""
    with live(create_app(embedded, name="embedded")) as found:
        yield found


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TextModel:
    """A small random model."""
    return load(str(write_llama_shaped(tmp_path_factory.mktemp("served") / "tiny")), device="cpu")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> float:
    """Connections are given this many seconds."""
    monkeypatch.setattr(connection, "ARRIVAL_S", 0.5)
    return 0.5
