"""Requests of a client: tried again while the server is busy, and every failure an error of this package."""

from __future__ import annotations

import asyncio
import os
import re
import time
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from dspy_diffusion_infill.errors import CanvasError, InfillerUnavailableError, SettingsError
from dspy_diffusion_infill.serving.limits import LOOPBACK
from dspy_diffusion_infill.serving.retrying import seconds_to_wait, worth_another_try
from dspy_diffusion_infill.serving.wire import to_bytes

Json = dict[str, Any]
KEEP_ALIVE_S = 3.0
"""Less than the server's: a connection is not used again while the other side closes it."""
TOGETHER = 16
"""Requests of one call that are under way."""
FAILURES = (httpx.RequestError, httpx.InvalidURL)


class Caller:
    """Asks one server, from many threads and from processes forked off.

    Args:
        url: Of the server.
        api_key: If it asks for one.
        timeout_s: For one request.
        retries: After the first try of each request.

    Raises:
        SettingsError: If `url` is no text.
    """

    def __init__(self, url: str, *, api_key: str | None, timeout_s: float, retries: int) -> None:
        self.url, self.retries = shown(url), retries
        headers = {"Content-Type": "application/json"}
        self._settings: Json = {
            "base_url": url.rstrip("/"),
            "headers": headers
            if api_key is None
            else {**headers, "Authorization": f"Bearer {api_key}".encode()},
            "timeout": httpx.Timeout(timeout_s, connect=5.0),
            "limits": httpx.Limits(max_connections=100, keepalive_expiry=KEEP_ALIVE_S),
        }
        self._clients: dict[int, httpx.Client] = {}
        try:
            self._settings["trust_env"] = through_proxies(url)
        except httpx.InvalidURL as error:
            raise self._unavailable("", error) from error

    def close(self) -> None:
        """Close the connections; a later request opens new ones."""
        for client in list(self._clients.values()):
            client.close()
        self._clients.clear()

    def ask(self, method: str, path: str, body: Json | None = None) -> Any:
        """What is answered.

        Raises:
            CanvasError: If the server refuses the request.
            InfillerUnavailableError: If it does not answer, after all tries.
        """
        content = None if body is None else to_bytes(body)
        for attempt in range(self.retries + 1):
            answer = None
            try:
                answer = self._client().request(method, path, content=content)
                if attempt == self.retries or not worth_another_try(answer):
                    return self._json(path, answer)
            except FAILURES as error:
                if attempt == self.retries:
                    raise self._unavailable(path, error) from error
            time.sleep(seconds_to_wait(attempt, answer))
        raise AssertionError("the last try returns or raises")

    def post_all(self, path: str, bodies: Sequence[Json]) -> list[Any]:
        """As `ask`; under way together, so that the server works on them in one batch."""
        with ThreadPoolExecutor(TOGETHER) as pool:
            return list(pool.map(lambda body: self.ask("POST", path, body), bodies))

    async def apost_all(self, path: str, bodies: Sequence[Json]) -> list[Any]:
        """As `post_all`, for `await`; with connections of its own, since an event loop may end unseen."""
        async with httpx.AsyncClient(**self._settings) as client:
            return await asyncio.gather(*(self._apost(client, path, body) for body in bodies))

    async def _apost(self, client: httpx.AsyncClient, path: str, body: Json) -> Any:
        content = to_bytes(body)
        for attempt in range(self.retries + 1):
            answer = None
            try:
                answer = await client.post(path, content=content)
                if attempt == self.retries or not worth_another_try(answer):
                    return self._json(path, answer)
            except FAILURES as error:
                if attempt == self.retries:
                    raise self._unavailable(path, error) from error
            await asyncio.sleep(seconds_to_wait(attempt, answer))
        raise AssertionError("the last try returns or raises")

    def _client(self) -> httpx.Client:
        """The connections of this process: one forked off would get its parent's answers."""
        process = os.getpid()
        if process not in self._clients:
            client = self._clients.setdefault(process, httpx.Client(**self._settings))
            weakref.finalize(self, client.close)  # of one that `connect` made, nobody else closes it
        return self._clients[process]

    def _json(self, path: str, answer: httpx.Response) -> Any:
        """What was answered, or the error it amounts to."""
        try:
            found = answer.json()
        except (ValueError, RecursionError) as error:
            raise InfillerUnavailableError(
                f"What answers at {self.url}{path} sends no JSON (status {answer.status_code})."
            ) from error
        if answer.status_code == 200:
            return found
        said = found.get("error", {}) if isinstance(found, Mapping) else {}
        message = said.get("message", answer.text) if isinstance(said, Mapping) else answer.text
        if answer.status_code in (400, 413, 422):
            raise CanvasError(f"{self.url}{path} refused the request: {message}")
        raise self._unavailable(path, f"{answer.status_code}, {message}")

    def _unavailable(self, path: str, why: object) -> InfillerUnavailableError:
        return InfillerUnavailableError(f"No infiller answers at {self.url}{path}: {why or repr(why)}")


def shown(url: str) -> str:
    """A URL as errors show it.

    Raises:
        SettingsError: If it is no text.

    Example:
        >>> shown("http://me:sekret@127.0.0.1:8011/")
        'http://127.0.0.1:8011'
    """
    if not isinstance(url, str):
        raise SettingsError(f"url must be a text such as http://127.0.0.1:8011; got {url!r}.")
    return re.sub("//[^/?#]*@", "//", url.rstrip("/"))


def through_proxies(url: str) -> bool:
    """Whether to ask by the environment's proxies.

    They do not reach what listens on this machine alone, and would be shown the key.

    Raises:
        httpx.InvalidURL: If it is no address.
    """
    return httpx.URL(url).host not in LOOPBACK
