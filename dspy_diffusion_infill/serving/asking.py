"""One request on its way: a place, a thread that waits for the model, and a client that may leave."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from fastapi import Request

from dspy_diffusion_infill.errors import RefusedError
from dspy_diffusion_infill.serving.desk import Desk
from dspy_diffusion_infill.serving.limits import Limits
from dspy_diffusion_infill.serving.metrics import Metrics
from dspy_diffusion_infill.serving.work import Ticket

Result = TypeVar("Result")


class Asking:
    """Runs the work of requests in threads, where waiting for the model is no harm.

    Args:
        desk: Gives places.
        limits: How many requests there may be, and how long one may take.
        metrics: Told who left.
    """

    def __init__(self, desk: Desk, limits: Limits, metrics: Metrics) -> None:
        self.desk, self._limits, self._metrics = desk, limits, metrics
        self._pool = ThreadPoolExecutor(limits.requests, thread_name_prefix="diffusion-infill-request")
        self._under_way: set[Ticket] = set()

    async def close(self) -> None:
        """Give up what is still under way, and end the threads."""
        for ticket in self._under_way:
            ticket.cancel()
        await asyncio.to_thread(self._pool.shutdown)

    async def answer(self, request: Request, client: str, work: Callable[[Ticket], Result]) -> Result:
        """Do the work for a client, in a place of its own.

        Raises:
            RefusedError: If there is no place, or it takes too long.
        """
        with self.desk.place(client):
            return await self.finish(Ticket(client), work, left(request))

    async def finish(
        self, ticket: Ticket, work: Callable[[Ticket], Result], left: asyncio.Future[None] | None = None
    ) -> Result:
        """Do the work, unless the client leaves first; the place is free only when the work is over.

        Raises:
            RefusedError: If it takes too long, or the server stops and cancels what it still has.
        """
        self._under_way.add(ticket)
        started, future = time.monotonic(), self.start(ticket, work)
        try:
            waited = {future} if left is None else {future, left}
            await asyncio.wait(waited, timeout=self._limits.seconds, return_when=asyncio.FIRST_COMPLETED)
            if not future.done():
                raise self._gave_up(left)
            self.desk.took(time.monotonic() - started)
            return future.result()
        except asyncio.CancelledError:
            raise RefusedError(503, "stopping", "The server is stopping; ask again later.", 5) from None
        finally:
            ticket.cancel()
            self._under_way.discard(ticket)
            if left is not None:
                left.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.wait({future})
                future.exception()  # looked at, also where nobody is left to hear of it

    def start(self, ticket: Ticket, work: Callable[[Ticket], Result]) -> asyncio.Future[Result]:
        """Do the work in a thread."""
        return asyncio.get_running_loop().run_in_executor(self._pool, work, ticket)

    def _gave_up(self, left: asyncio.Future[None] | None) -> RefusedError:
        if left is not None and left.done():
            self._metrics.cancelled.inc()
            return RefusedError(499, "client_left", "The client closed the connection.")
        message = f"The answer took longer than {self._limits.seconds:g} seconds; ask for less at a time."
        return RefusedError(504, "too_long", message)


def client_of(request: Request, user: str | None) -> str:
    """Between whom turns are taken: keys or addresses, and the users that each of them names."""
    return f"{request.scope['infill.client']}/{user or ''}"


def left(request: Request) -> asyncio.Future[None]:
    """Done when the client closes the connection."""

    async def wait() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    return asyncio.ensure_future(wait())
