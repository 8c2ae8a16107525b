"""Answers as server-sent events, piece by piece."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from dspy_diffusion_infill.engine.generation import Answer
from dspy_diffusion_infill.errors import InfillError
from dspy_diffusion_infill.serving.asking import Asking
from dspy_diffusion_infill.serving.openai import Envelope, piece
from dspy_diffusion_infill.serving.work import Ticket
from dspy_diffusion_infill.serving.writing import Writer, Writing


class Events(StreamingResponse):
    """A stream that gives its place back however it ends."""

    def __init__(self, events: AsyncIterator[str], place: ExitStack) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"cache-control": "no-store"})
        self._place = place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._place:
            await super().__call__(scope, receive, send)


async def events(
    asking: Asking, writer: Writer, writing: Writing, ticket: Ticket, envelope: Envelope, *, with_usage: bool
) -> AsyncIterator[str]:
    """Pieces of each choice, as its first tokens become certain; then how each ended.

    Args:
        asking: Has the work done.
        writer: Writes it.
        writing: What is to be written.
        ticket: Of the request.
        envelope: What each event says besides its choices.
        with_usage: Whether the last event counts tokens.
    """
    grown: asyncio.Queue[tuple[int, Sequence[int]] | None] = asyncio.Queue()
    loop, texts = asyncio.get_running_loop(), writer.growing(writing)
    ticket.progress = lambda task, ids: _tell(loop, grown, (task, ids))
    finish = asyncio.ensure_future(asking.finish(ticket, lambda ticket: writer.write(writing, ticket)))
    finish.add_done_callback(functools.partial(_end, grown))
    try:
        for index in range(len(texts)):
            yield _event(envelope([piece(writing.kind, index, "", None, first=True)]))
        while (told := await grown.get()) is not None:
            for index, task in enumerate(writing.choices):
                text = texts[index].grow(told[1][writing.spans[task].start :]) if task == told[0] else ""
                if text:
                    yield _event(envelope([piece(writing.kind, index, text, None, first=False)]))
        answers = finish.result()
        for index, answer in enumerate(answers):
            yield _event(envelope([_last(writing, index, texts[index].finish(answer.text), answer)]))
        if with_usage:
            yield _event(envelope([], writer.usage(writing, answers)))
        yield "data: [DONE]\n\n"
    except InfillError as error:
        yield _event({"error": {"message": str(error), "type": "server_error", "code": None, "param": None}})
    finally:
        ticket.cancel()
        await asyncio.wait({finish})


def _last(writing: Writing, index: int, text: str, answer: Answer) -> dict[str, Any]:
    return piece(writing.kind, index, text, "stop" if answer.stopped else "length", first=False)


def _end(grown: asyncio.Queue[Any], finished: asyncio.Future[Any]) -> None:
    """Nothing more will be told. A failure that nobody stayed to hear of is no news for the log."""
    if not finished.cancelled():
        finished.exception()
    grown.put_nowait(None)


def _event(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body)}\n\n"


def _tell(loop: asyncio.AbstractEventLoop, queue: asyncio.Queue[Any], told: object) -> None:
    """From the model's thread to the event loop; nobody listens once that is closed."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(queue.put_nowait, told)
