"""The same engine for `await`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from dspy_diffusion_infill.engine.requests import SUPPORTED, lm15

if TYPE_CHECKING:
    from dspy_diffusion_infill.engine.lm import DiffusionEngine


class AsyncDiffusionEngine:
    """The same engine for `await`; shares batches and weights with the one it wraps.

    Args:
        engine: The engine that does the work.
    """

    supported_params = SUPPORTED

    def __init__(self, engine: DiffusionEngine) -> None:
        self.engine = engine

    async def complete(self, request: lm15.Request) -> lm15.Response:
        """Answer one request; see `DiffusionEngine.complete`."""
        return await self.engine.acomplete(request)

    async def stream(self, request: lm15.Request) -> AsyncIterator[Any]:
        """The answer as events; see `DiffusionEngine.stream`."""
        for event in lm15.response_to_events(await self.complete(request)):
            yield event

    async def aclose(self) -> None:
        """Nothing to close."""

    def dump_state(self) -> dict[str, Any]:
        """As `DiffusionEngine.dump_state`."""
        return self.engine.dump_state()

    @classmethod
    def load_state(cls, state: dict[str, Any]) -> AsyncDiffusionEngine:
        """As `DiffusionEngine.load_state`."""
        from dspy_diffusion_infill.engine.lm import DiffusionEngine  # which offers this one to `dspy.LM`

        return cls(DiffusionEngine.load_state(state))

    def __copy__(self) -> AsyncDiffusionEngine:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> AsyncDiffusionEngine:
        return self
