"""An LM that waits for its server, where any other would fail."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

import dspy

from dspy_diffusion_infill.judges.server import JudgeServer
from dspy_diffusion_infill.search import failures

PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds before each further try of one call. A server that dies answers /health for a moment."""


class _WaitingLM(dspy.LM):
    """`dspy.LM` with another way to be called."""

    server: JudgeServer

    def __call__(
        self, prompt: Any = None, *, messages: list[dict[str, Any]] | None = None, **kwargs: Any
    ) -> Any:
        call = functools.partial(super().__call__, prompt, messages=messages, **kwargs)
        return failures.retry(call, PAUSES, self.server.wait_until_back)

    async def acall(
        self, prompt: Any = None, *, messages: list[dict[str, Any]] | None = None, **kwargs: Any
    ) -> Any:
        for pause in PAUSES:
            try:
                return await super().acall(prompt, messages=messages, **kwargs)
            except Exception as error:
                if not failures.is_outage(error):
                    raise
            await asyncio.to_thread(self.server.wait_until_back, pause)
        return await super().acall(prompt, messages=messages, **kwargs)


class ServedLM(_WaitingLM):
    """A model on a judge's server. While that is away, calls wait for it, and are then made again.

    DSPy's cache knows a model by its name and the options of a call, not by its address. `identity`, an
    option (OpenAI's `user`) that means nothing to vLLM, keeps the answers of two models of one name apart.

    Args:
        model: As the server names it.
        server: That holds it.
        identity: Of the model and of what else changes its answers.
        api_key: That the server asks for.
        decoding: Arguments for `dspy.LM`.
        cache: Whether DSPy caches replies.
    """

    def __init__(
        self,
        model: str,
        *,
        server: JudgeServer,
        identity: str,
        decoding: dict[str, Any],
        api_key: str | None = None,
        cache: bool = True,
    ) -> None:
        key = {"api_key": api_key} if api_key else {}
        super().__init__(
            f"hosted_vllm/{model}",
            api_base=server.url,
            user=identity,
            num_retries=0,
            cache=cache,
            **key,
            **decoding,
        )
        self.server = server

    def dump_state(self) -> dict[str, Any]:
        """As a plain `dspy.LM` of that address: a server cannot be saved."""
        return dspy.LM(self.model, cache=self.cache, **self.kwargs).dump_state()
