"""Connections that send nothing, or half a request head, are closed in time."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

ARRIVAL_S = 10.0
"""For the head of a request to arrive, from the opening of its connection or from its first byte."""


class PunctualProtocol(H11Protocol):
    """uvicorn's HTTP with a deadline for request heads, which it has none for; bodies: see `Gate`.

    uvicorn's own `timeout_keep_alive` starts after an answer, and ends with the next request's first byte.
    """

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().connection_made(transport)
        self._deadline = self.loop.call_later(ARRIVAL_S, self._give_up)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle and not self.cycle.response_complete:
            self._unset_deadline()
        elif self._deadline is None and not self.transport.is_closing():
            self._deadline = self.loop.call_later(ARRIVAL_S, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        self._unset_deadline()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        self._unset_deadline()
        super().on_response_complete()

    def _give_up(self) -> None:
        self._deadline = None
        self.transport.close()

    def _unset_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
