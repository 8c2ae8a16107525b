"""Answers as server-sent events, piece by piece."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import ExitStack, aclosing, suppress
from functools import partial
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from dspy_diffusion_infill.engine.generation import Answer
from dspy_diffusion_infill.errors import InfillError
from dspy_diffusion_infill.serving.asking import Asking
from dspy_diffusion_infill.serving.gate import error_body
from dspy_diffusion_infill.serving.metrics import Metrics
from dspy_diffusion_infill.serving.openai import Envelope, piece
from dspy_diffusion_infill.serving.work import Ticket
from dspy_diffusion_infill.serving.writing import Writer, Writing


class Events(StreamingResponse):
    """A stream that gives its place back however it ends.

    Args:
        events: To be sent.
        place: Of the request.
        seconds: For the client to take an event.
        metrics: Told of a client that did not take them all.
    """

    def __init__(
        self, events: AsyncGenerator[str], place: ExitStack, *, seconds: float, metrics: Metrics
    ) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"cache-control": "no-store"})
        self._events, self._place, self._seconds, self._metrics = events, place, seconds, metrics
        self._whole = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            # a client that left, or that takes nothing, and a server that stops are no failures
            with self._place, suppress(TimeoutError, ClientDisconnect, asyncio.CancelledError):
                async with aclosing(self._events):
                    await super().__call__(scope, receive, partial(self._send_in_time, send))
        finally:
            if not self._whole:
                self._metrics.cancelled.inc()

    async def _send_in_time(self, send: Send, message: Message) -> None:
        async with asyncio.timeout(self._seconds):
            await send(message)
        await asyncio.sleep(0)  # other requests come between two events
        self._whole = not message.get("more_body", True)


class Told:
    """What the model told of each task and nobody looked at yet: the newest, which holds all of it."""

    def __init__(self) -> None:
        self._loop, self._news = asyncio.get_running_loop(), asyncio.Event()
        self._newest: dict[int, Sequence[int]] = {}
        self._over = False

    def tell(self, task: int, ids: Sequence[int]) -> None:
        """From the model's thread; nobody listens once the event loop is closed."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._take, task, ids)

    def end(self) -> None:
        """Nothing more will be told."""
        self._over = True
        self._news.set()

    async def __aiter__(self) -> AsyncIterator[tuple[int, Sequence[int]]]:
        while not self._over or self._newest:
            await self._news.wait()
            self._news.clear()
            newest, self._newest = self._newest, {}
            for told in newest.items():
                yield told

    def _take(self, task: int, ids: Sequence[int]) -> None:
        self._newest[task] = ids
        self._news.set()


async def events(
    asking: Asking, writer: Writer, writing: Writing, ticket: Ticket, envelope: Envelope, *, with_usage: bool
) -> AsyncGenerator[str]:
    """Pieces of each choice, as its first tokens become certain; then how each ended.

    Args:
        asking: Has the work done.
        writer: Writes it.
        writing: What is to be written.
        ticket: Of the request.
        envelope: What each event says besides its choices.
        with_usage: Whether the last event counts tokens.
    """
    told, texts = Told(), writer.growing(writing)
    ticket.progress = told.tell
    finish = asyncio.ensure_future(asking.finish(ticket, lambda ticket: writer.write(writing, ticket)))
    finish.add_done_callback(partial(_end, told))
    try:
        for index in range(len(writing.choices)):
            yield _event(envelope([piece(writing.kind, index, "", None, first=True)]))
        async for task, ids in told:
            text = texts[task].grow(ids[writing.spans[task].start :])
            for index in writing.choices_of(task) if text else ():
                yield _event(envelope([piece(writing.kind, index, text, None, first=False)]))
        answers = finish.result()
        rest = [text.finish(answer.text) for text, answer in zip(texts, answers, strict=True)]
        for index, task in enumerate(writing.choices):
            yield _event(envelope([_last(writing, index, rest[task], answers[task])]))
        if with_usage:
            yield _event(envelope([], writer.usage(writing, answers)))
    except InfillError as error:
        yield _event(error_body(error))
    finally:
        ticket.cancel()
        await asyncio.wait({finish})
    yield "data: [DONE]\n\n"


def _last(writing: Writing, index: int, text: str, answer: Answer) -> dict[str, Any]:
    return piece(writing.kind, index, text, "stop" if answer.stopped else "length", first=False)


def _end(told: Told, finished: asyncio.Future[Any]) -> None:
    """Nothing more will be told. A failure that nobody stayed to hear of is no news for the log."""
    if not finished.cancelled():
        finished.exception()
    told.end()


def _event(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body)}\n\n"
