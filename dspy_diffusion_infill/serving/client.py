"""An infiller behind a URL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Self

import httpx

from dspy_diffusion_infill.errors import CanvasError, InfillerUnavailableError
from dspy_diffusion_infill.prompts.canvas import Canvas, Denoising, Filling
from dspy_diffusion_infill.serving.wire import canvas_to_json, filling_from_json


class RemoteInfiller:
    """Fills canvases on a server; an `Infiller`.

    Speaks `GET /health`, `POST /v1/tokenize` and `POST /v1/infill`. The server is asked once at construction.

    Args:
        url: Of the server, e.g. `http://127.0.0.1:8011`.
        denoising: How masks are turned into text; sent with every request.
        timeout_s: For one request.

    Raises:
        InfillerUnavailableError: If nothing answers there, or what answers is no infiller.

    Example:
        >>> RemoteInfiller("http://127.0.0.1:8011").context_length  # doctest: +SKIP
        4096
    """

    def __init__(self, url: str, *, denoising: Denoising = Denoising(), timeout_s: float = 600.0) -> None:  # noqa: B008  (frozen)
        self.url = url.rstrip("/")
        self._settings = str(denoising)
        self._denoising = {
            name: value for name, value in asdict(denoising).items() if name != "num_candidates"
        }
        self._client = httpx.Client(base_url=self.url, timeout=httpx.Timeout(timeout_s, connect=5.0))
        health = self._ask("GET", "/health")
        self._model, self._context_length = (
            self._read(health, "model", str),
            self._read(health, "context_length", int),
        )

    @property
    def name(self) -> str:
        """The served model and the settings that change its answers."""
        return f"{self._model}?{self._settings}"

    @property
    def context_length(self) -> int:
        """The most tokens a canvas may have."""
        return self._context_length

    def close(self) -> None:
        """Close the connections; a later request fails."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Character range of each token of `text`, in order."""
        answer = self._ask("POST", "/v1/tokenize", {"text": text})
        return [(start, end) for start, end in self._read(answer, "offsets", list)]

    def num_tokens(self, canvas: Canvas) -> int:
        """Tokens of the whole canvas, masks and chat template included."""
        return self._read(
            self._ask("POST", "/v1/tokenize", {"canvas": canvas_to_json(canvas)}), "num_tokens", int
        )

    def infill(self, canvases: Sequence[Canvas], *, num_candidates: int, seed: int) -> list[list[Filling]]:
        """Fill every canvas `num_candidates` times."""
        request = {
            "canvases": [canvas_to_json(canvas) for canvas in canvases],
            "num_candidates": num_candidates,
            "seed": seed,
            "denoising": self._denoising,
        }
        answer = self._read(self._ask("POST", "/v1/infill", request), "fillings", list)
        return [[filling_from_json(filling) for filling in fillings] for fillings in answer]

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            answer = self._client.request(method, path, json=body)
            if answer.status_code == 422:
                raise CanvasError(f"{self.url}{path} refused the request: {answer.text}")
            answer.raise_for_status()
            return answer.json()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise InfillerUnavailableError(
                f"No infiller answers at {self.url}{path}: {error or repr(error)}"
            ) from error
        except ValueError as error:
            if isinstance(error, CanvasError):
                raise
            raise InfillerUnavailableError(f"What answers at {self.url}{path} sends no JSON.") from error

    def _read(self, answer: Any, name: str, kind: type) -> Any:
        if not isinstance(answer, dict) or not isinstance(answer.get(name), kind):
            raise InfillerUnavailableError(
                f"What answers at {self.url} is no infiller: its answer lacks {name!r}."
            )
        return answer[name]
