"""An infiller behind a URL."""

from __future__ import annotations

import asyncio
import time
import uuid
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Self

import httpx

from dspy_diffusion_infill.errors import CanvasError, InfillerUnavailableError
from dspy_diffusion_infill.prompts.canvas import Canvas, Denoising, Filling
from dspy_diffusion_infill.serving.retrying import seconds_to_wait, worth_another_try
from dspy_diffusion_infill.serving.wire import (
    Part,
    canvas_to_json,
    context_to_json,
    denoising_to_json,
    filling_from_json,
    in_order,
    requests_for,
)

Json = dict[str, Any]
KEEP_ALIVE_S = 3.0
"""Less than the server's: a connection is not used again while the other side closes it."""


TOGETHER = 16
"""Requests of one call that are under way."""


class RemoteInfiller:
    """Fills canvases on a server (`diffusion-infill serve`); an `Infiller` and a `Scorer`, for many threads.

    The server is asked once at construction, without a second try. Later requests are tried again, with
    pauses, when the server is busy (429, 503) or the connection fails; what is too large for one request is
    divided, and so are canvases of different contexts. `ainfill` is the same for `await`.

    Args:
        url: Of the server, e.g. `http://127.0.0.1:8011`.
        api_key: If the server asks for one. Sent with every request, written nowhere.
        denoising: How masks are turned into text; sent with every request.
        timeout_s: For one request.
        retries: After the first try.

    Raises:
        InfillerUnavailableError: If nothing answers there, the key is wrong, or what answers is no infiller.

    Example:
        >>> RemoteInfiller("http://127.0.0.1:8011").context_length  # doctest: +SKIP
        4096
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        denoising: Denoising = Denoising(),  # noqa: B008  (frozen)
        timeout_s: float = 600.0,
        retries: int = 6,
    ) -> None:
        self.url, self._retries = url.rstrip("/"), 0
        self._settings: Json = {
            "base_url": self.url,
            "headers": {} if api_key is None else {"Authorization": f"Bearer {api_key}"},
            "timeout": httpx.Timeout(timeout_s, connect=5.0),
            "limits": httpx.Limits(max_connections=100, keepalive_expiry=KEEP_ALIVE_S),
        }
        self._client = httpx.Client(**self._settings)
        self._async: weakref.WeakKeyDictionary[Any, httpx.AsyncClient] = weakref.WeakKeyDictionary()
        try:
            self._meet(denoising)
        except BaseException:
            self._client.close()
            raise
        self._retries, self._user = retries, uuid.uuid4().hex
        weakref.finalize(self, self._client.close)  # of one that `connect` made, nobody else closes it

    def _meet(self, denoising: Denoising) -> None:
        """Ask the server what it serves."""
        card = next(iter(self._read(self._ask("GET", "/v1/models"), "data", list)), None)
        self._model, self._limits = self._read(card, "fingerprint", str), self._read(card, "limits", dict)
        self._context_length = self._read(card, "context_length", int)
        self._scores = bool(card and card.get("scorer"))
        settled = self._read(card, "cache", str) if denoising.cache == "auto" else denoising.cache
        self.denoising = replace(denoising, cache=settled)

    @property
    def name(self) -> str:
        """The served model and the settings that change its answers, as in the server's own process."""
        return f"{self._model}?{self.denoising}"

    @property
    def context_length(self) -> int:
        """The most tokens a canvas may have."""
        return self._context_length

    def close(self) -> None:
        """Close the connections; a later request fails."""
        self._client.close()

    async def aclose(self) -> None:
        """Close the connections, those of this event loop included."""
        self.close()
        if client := self._async.pop(asyncio.get_running_loop(), None):
            await client.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Character range of each token of `text`, in order."""
        answer = self._ask("POST", "/v1/tokenize", {"text": text})
        return [(start, end) for start, end in self._read(answer, "offsets", list)]

    def num_tokens(self, canvas: Canvas) -> int:
        """Tokens of the whole canvas, masks and chat template included."""
        body = {"canvas": canvas_to_json(canvas), "context": context_to_json(canvas.context)}
        return self._read(self._ask("POST", "/v1/tokenize", body), "num_tokens", int)

    def infill(self, canvases: Sequence[Canvas], *, num_candidates: int, seed: int) -> list[list[Filling]]:
        """Fill every canvas `num_candidates` times.

        Raises:
            CanvasError: If the server cannot lay a canvas out, or finds it too large.
            InfillerUnavailableError: If it does not answer, after all tries.
        """
        parts = list(requests_for(canvases, num_candidates, self._limits))
        answers = self._post_all("/v1/infill", [self._body(part, num_candidates, seed) for _, part in parts])
        return in_order(parts, map(self._fillings, parts, answers))

    async def ainfill(
        self, canvases: Sequence[Canvas], *, num_candidates: int, seed: int
    ) -> list[list[Filling]]:
        """As `infill`, for `await`."""
        parts = list(requests_for(canvases, num_candidates, self._limits))
        bodies = [self._body(part, num_candidates, seed) for _, part in parts]
        answers = await asyncio.gather(*(self._aask("POST", "/v1/infill", body) for body in bodies))
        return in_order(parts, map(self._fillings, parts, answers))

    def nll_per_token(self, canvases: Sequence[Canvas], texts: Sequence[Sequence[str]]) -> list[float]:
        """Negative log-likelihood of texts in the masked parts of canvases, in nats per token; see `Scorer`.

        Raises:
            CanvasError: If the server cannot lay a canvas out with its texts.
            InfillerUnavailableError: If it does not answer, or does not score canvases.
        """
        if not self._scores:
            raise InfillerUnavailableError(
                f"{self.url} must score canvases (/v1/score); it does not. Serve the model with this version."
            )
        parts = list(requests_for(canvases, 1, self._limits, texts))
        answers = self._post_all("/v1/score", [{**part, "user": self._user} for _, part in parts])
        return in_order(parts, [self._read(answer, "nll_per_token", list) for answer in answers])

    def _body(self, part: Json, num_candidates: int, seed: int) -> Json:
        how = denoising_to_json(self.denoising)
        return {**part, "n": num_candidates, "seed": seed, "user": self._user, **how}

    def _fillings(self, part: Part, answer: Json) -> list[list[Filling]]:
        fillings, count = self._read(answer, "fillings", list), len(part[0])
        try:
            found = [[filling_from_json(filling) for filling in each] for each in fillings]
        except (KeyError, TypeError, ValueError) as error:
            raise InfillerUnavailableError(f"What answers at {self.url} sends no fillings.") from error
        if len(found) != count:
            raise InfillerUnavailableError(f"{self.url} must fill {count} canvases; got {len(found)}.")
        return found

    def _post_all(self, path: str, bodies: Sequence[Json]) -> list[Json]:
        """Under way together, so that the server works on them in one batch."""
        with ThreadPoolExecutor(TOGETHER) as pool:
            return list(pool.map(lambda body: self._ask("POST", path, body), bodies))

    def _ask(self, method: str, path: str, body: Json | None = None) -> Json:
        for attempt in range(self._retries + 1):
            answer = None
            try:
                answer = self._client.request(method, path, json=body)
                if attempt == self._retries or not worth_another_try(answer):
                    return self._json(path, answer)
            except (httpx.TransportError, httpx.InvalidURL) as error:
                if attempt == self._retries:
                    raise self._unavailable(path, error) from error
            time.sleep(seconds_to_wait(attempt, answer))
        raise AssertionError("the last try returns or raises")

    async def _aask(self, method: str, path: str, body: Json | None = None) -> Json:
        client = self._client_here()
        for attempt in range(self._retries + 1):
            answer = None
            try:
                answer = await client.request(method, path, json=body)
                if attempt == self._retries or not worth_another_try(answer):
                    return self._json(path, answer)
            except httpx.TransportError as error:
                if attempt == self._retries:
                    raise self._unavailable(path, error) from error
            await asyncio.sleep(seconds_to_wait(attempt, answer))
        raise AssertionError("the last try returns or raises")

    def _client_here(self) -> httpx.AsyncClient:
        """The connections of this event loop."""
        loop = asyncio.get_running_loop()
        if loop not in self._async:
            self._async[loop] = httpx.AsyncClient(**self._settings)
        return self._async[loop]

    def _json(self, path: str, answer: httpx.Response) -> Json:
        """What was answered, or the error it amounts to."""
        try:
            found = answer.json()
        except ValueError as error:
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

    def _read(self, answer: Any, name: str, kind: type) -> Any:
        if not isinstance(answer, dict) or not isinstance(answer.get(name), kind):
            raise InfillerUnavailableError(
                f"What answers at {self.url} is no infiller: its answer lacks {name!r}."
            )
        return answer[name]
