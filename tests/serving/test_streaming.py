"""Text that is given out while the rest is still masked, and how it is sent."""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import ExitStack

import pytest

from dspy_diffusion_infill.engine.generation import read_answer
from dspy_diffusion_infill.engine.reverse import Decoding
from dspy_diffusion_infill.errors import CanvasError, RefusedError
from dspy_diffusion_infill.serving.asking import Asking
from dspy_diffusion_infill.serving.desk import Desk
from dspy_diffusion_infill.serving.events import Events, Told, events
from dspy_diffusion_infill.serving.limits import Limits
from dspy_diffusion_infill.serving.metrics import Counted, Metrics
from dspy_diffusion_infill.serving.openai import Envelope
from dspy_diffusion_infill.serving.streaming import Growing
from dspy_diffusion_infill.serving.work import Ticket
from dspy_diffusion_infill.serving.writing import Writing


def given(vocabulary, text, stops=(), size=1):
    """What a growing answer gives out, as `size` more tokens at a time become certain."""
    ids, growing = vocabulary.encode(text), Growing(vocabulary, stops)
    return [growing.grow(ids[:end]) for end in range(0, len(ids) + size, size)], growing


def test_pieces_add_up_to_the_text_and_nothing_is_taken_back(embedded):
    text = "Rate the review: süß, 5 of 5! 日本"
    pieces, growing = given(embedded.vocabulary, text)
    assert "".join(pieces) == text
    assert len([piece for piece in pieces if piece]) > 5
    assert growing.finish(text) == ""


def test_half_a_character_is_held_back(embedded):
    pieces, _ = given(embedded.vocabulary, "日")
    assert len(pieces) > 2
    assert [piece for piece in pieces if piece] == ["日"]


@pytest.mark.parametrize("size", [1, 2, 100])
def test_nothing_of_a_stop_text_is_given_out(embedded, size):
    pieces, growing = given(embedded.vocabulary, "one two [END] three", stops=["[END]", "zzz"], size=size)
    assert "".join(pieces) == "one two "
    assert growing.finish("one two ") == ""


def test_what_only_looked_like_a_stop_text_comes_later(embedded):
    pieces, growing = given(embedded.vocabulary, "a [EN", stops=["[END]"])
    assert "".join(pieces) == "a "
    assert growing.finish("a [EN") == "[EN"


def test_nothing_follows_a_stop_token(embedded):
    growing, vocabulary = Growing(embedded.vocabulary, ()), embedded.vocabulary
    stop = min(vocabulary.stop_ids)
    assert growing.grow([*vocabulary.encode("good"), stop, *vocabulary.encode("bad")]) == "good"


@pytest.mark.parametrize(
    ("text", "stops", "kept"),
    [("abcdef", ["abcdef", "cd"], "ab"), ("abcdef", ["cd", "bcd"], "a"), ("abcd", ["cd", "abX"], "ab")],
)
@pytest.mark.parametrize("size", [1, 2, 100])
def test_of_several_stop_texts_the_one_that_ends_first_counts(embedded, text, stops, kept, size):
    pieces, _ = given(embedded.vocabulary, text, stops, size)
    assert "".join(pieces) == kept
    assert read_answer(embedded.vocabulary, embedded.vocabulary.encode(text), stops).text == kept


async def one(text):
    yield text


def sent(stream, send):
    """Send a stream to a client that stays."""
    asyncio.run(stream({"type": "http"}, asyncio.Event().wait, send))


def test_a_client_that_takes_nothing_loses_its_place():
    place, metrics, left = ExitStack(), Metrics(), []
    place.callback(left.append, True)

    async def never(message):
        await asyncio.Event().wait()

    sent(Events(one("x"), place, seconds=0.01, metrics=metrics), never)
    assert left
    assert b"cancelled_requests_total 1.0" in metrics.text()


def test_a_client_that_takes_all_is_not_counted_among_those_that_left():
    metrics, came = Metrics(), []

    async def take(message):
        came.append(message.get("body"))

    sent(Events(one("x"), ExitStack(), seconds=9, metrics=metrics), take)
    assert came == [None, b"x", b""]
    assert b"cancelled_requests_total 0.0" in metrics.text()


def test_of_what_is_told_of_a_task_the_newest_is_kept():
    async def hear():
        told = Told()
        for task, ids in ((0, [1]), (1, [7]), (0, [1, 2])):
            told.tell(task, ids)
        await asyncio.sleep(0)
        told.end()
        return [news async for news in told]

    assert asyncio.run(hear()) == [(0, [1, 2]), (1, [7])]


class Broken:
    """In place of what asks and what writes."""

    def __init__(self, error):
        self._error = error

    async def finish(self, ticket, work):
        raise self._error

    def growing(self, writing):
        return []


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (RefusedError(504, "too_long", "It took long."), "server_error", "too_long"),
        (CanvasError("Too long."), "invalid_request_error", "invalid_request"),
    ],
)
def test_an_error_in_a_stream_says_what_it_is_and_ends_it(error, kind, code):
    async def hear():
        writing = Writing("chat.completion", [], [], [], Decoding(), (), 0)
        envelope = Envelope(writing.kind, "m", chunk=True)
        broken = Broken(error)
        return [
            event async for event in events(broken, broken, writing, Ticket("me"), envelope, with_usage=True)
        ]

    told, done = asyncio.run(hear())
    assert json.loads(told.removeprefix("data: "))["error"] == {
        "message": str(error), "type": kind, "code": code, "param": None
    }  # fmt: skip
    assert done == "data: [DONE]\n\n"


def under_way(stop):
    """What becomes of a request whose work ends only when it is given up, once the server stops."""

    async def ask():
        asking = Asking(Desk(Limits(), Metrics()), Limits(requests=1), Metrics())
        ticket = Ticket("me")
        asked = asyncio.create_task(asking.finish(ticket, wait))
        await asyncio.sleep(0.02)
        await stop(asking, asked)
        return await asked

    def wait(ticket):
        for _ in range(500):
            if ticket.cancelled:
                return "given up"
            threading.Event().wait(0.01)
        return "never"

    return asyncio.run(ask())


def test_a_server_that_stops_gives_up_what_is_under_way():
    assert under_way(lambda asking, asked: asking.close()) == "given up"


def test_a_request_that_the_stopping_server_cancels_is_told_to_come_again():
    async def cancel(asking, asked):
        asked.cancel()

    with pytest.raises(RefusedError, match="is stopping; ask again later") as caught:
        under_way(cancel)
    assert (caught.value.status, caught.value.retry_after_s) == (503, 5)


def test_a_failure_of_the_server_is_counted_as_500():
    metrics = Metrics()

    async def fail(scope, receive, send):
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        asyncio.run(Counted(fail, metrics=metrics)({"type": "http"}, None, None))
    assert b'requests_total{route="other",status="500"} 1.0' in metrics.text()
