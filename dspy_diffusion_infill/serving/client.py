"""An infiller behind a URL."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
from operator import index
from typing import Any, NoReturn, Self

from dspy_diffusion_infill.errors import InfillerUnavailableError, SettingsError
from dspy_diffusion_infill.prompts.canvas import Canvas, Denoising, Filling, check_texts
from dspy_diffusion_infill.serving.calling import Caller
from dspy_diffusion_infill.serving.keys import check_key
from dspy_diffusion_infill.serving.reading import (
    Counted,
    read,
    read_card,
    read_fillings,
    read_offsets,
    read_scores,
)
from dspy_diffusion_infill.serving.wire import (
    Part,
    canvas_to_json,
    context_to_json,
    denoising_to_json,
    in_order,
    requests_for,
)


class RemoteInfiller:
    """Fills canvases on a server (`diffusion-infill serve`); an `Infiller` and a `Scorer`, for many threads.

    The server is asked once at construction, without a second try. Later requests are tried again, with
    pauses, when the server is busy (429, 503) or the connection fails; what is too large for one request is
    divided, and so are canvases of different contexts. `ainfill` is the same for `await`.

    Args:
        url: Of the server, e.g. `http://127.0.0.1:8011`.
        api_key: If the server asks for one. Sent with every request, written nowhere; to a loopback host
            past any proxy.
        denoising: How masks are turned into text; sent with every request.
        timeout_s: For one request.
        retries: After the first try.

    Raises:
        InfillerUnavailableError: If nothing answers there, the key is wrong, or what answers is no infiller.
        SettingsError: If `api_key` has blanks, or `retries` is negative.

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
        if api_key is not None:
            check_key("api_key", api_key)
        if retries < 0:
            raise SettingsError(f"retries must be at least 0; got {retries}.")
        self._caller = Caller(url, api_key=api_key, timeout_s=timeout_s, retries=0)
        self.url, self._user = self._caller.url, uuid.uuid4().hex
        try:
            self._card = read_card(self._caller.ask("GET", "/v1/models"), self.url)
        except BaseException:
            self._caller.close()
            raise
        self._caller.retries, self._limits = retries, self._card.limits.model_dump()
        self.denoising = (
            replace(denoising, cache=self._card.cache) if denoising.cache == "auto" else denoising
        )

    @property
    def name(self) -> str:
        """The served model and the settings that change its answers, as in the server's own process."""
        return f"{self._card.fingerprint}?{self.denoising}"

    @property
    def context_length(self) -> int:
        """The most tokens a canvas may have."""
        return self._card.context_length

    def close(self) -> None:
        """Close the connections; a later request opens new ones."""
        self._caller.close()

    async def aclose(self) -> None:
        """As `close`."""
        self.close()

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        """Itself: DSPy copies programs with all they hold, and many may use one."""
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "A RemoteInfiller cannot be pickled: its key would be written. Make one from its url."
        )

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
        return read_offsets(self._caller.ask("POST", "/v1/tokenize", {"text": text}), text, self.url)

    def num_tokens(self, canvas: Canvas) -> int:
        """Tokens of the whole canvas, masks and chat template included."""
        body = {"canvas": canvas_to_json(canvas), "context": context_to_json(canvas.context)}
        return read(Counted, self._caller.ask("POST", "/v1/tokenize", body), self.url).num_tokens

    def infill(self, canvases: Sequence[Canvas], *, num_candidates: int, seed: int) -> list[list[Filling]]:
        """Fill every canvas `num_candidates` times.

        Raises:
            CanvasError: If the server cannot lay a canvas out, or finds it too large.
            InfillerUnavailableError: If it does not answer, after all tries.
            SettingsError: If `num_candidates` is below 1.
        """
        parts, bodies = self._asked(canvases, num_candidates, seed)
        return self._fillings(canvases, num_candidates, parts, self._caller.post_all("/v1/infill", bodies))

    async def ainfill(
        self, canvases: Sequence[Canvas], *, num_candidates: int, seed: int
    ) -> list[list[Filling]]:
        """As `infill`, for `await`."""
        parts, bodies = self._asked(canvases, num_candidates, seed)
        answers = await self._caller.apost_all("/v1/infill", bodies)
        return self._fillings(canvases, num_candidates, parts, answers)

    def nll_per_token(self, canvases: Sequence[Canvas], texts: Sequence[Sequence[str]]) -> list[float]:
        """Negative log-likelihood of texts in the masked parts of canvases, in nats per token; see `Scorer`.

        Raises:
            CanvasError: If there is not one text for each masked part, or the server cannot lay a canvas out
                with its texts.
            InfillerUnavailableError: If it does not answer, or does not score canvases.
        """
        check_texts(canvases, texts)
        if not self._card.scorer:
            raise InfillerUnavailableError(
                f"{self.url} must score canvases (/v1/score); it does not. Serve the model with this version."
            )
        parts = list(requests_for(canvases, 1, self._limits, texts))
        answers = self._caller.post_all("/v1/score", [{**part, "user": self._user} for _, part in parts])
        found = (
            read_scores(answer, len(members), self.url)
            for (members, _), answer in zip(parts, answers, strict=True)
        )
        return in_order(parts, found)

    def _asked(
        self, canvases: Sequence[Canvas], num_candidates: int, seed: int
    ) -> tuple[list[Part], list[dict[str, Any]]]:
        """The parts that canvases are divided into, and the body of each request."""
        if num_candidates < 1:
            raise SettingsError(f"num_candidates must be at least 1; got {num_candidates}.")
        parts = list(requests_for(canvases, index(num_candidates), self._limits))
        how = denoising_to_json(self.denoising)
        # numbers may be NumPy's, which JSON does not know
        asked = {"n": index(num_candidates), "seed": index(seed), "user": self._user, **how}
        return parts, [part | asked for _, part in parts]

    def _fillings(
        self, canvases: Sequence[Canvas], num_candidates: int, parts: Sequence[Part], answers: Sequence[Any]
    ) -> list[list[Filling]]:
        found = (
            read_fillings(
                answer, [canvases[member].num_masked_parts for member in members], num_candidates, self.url
            )
            for (members, _), answer in zip(parts, answers, strict=True)
        )
        return in_order(parts, found)
