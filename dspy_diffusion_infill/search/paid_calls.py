"""Metric calls of a base: each is written down as it is paid for, and answers once more after a kill."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dspy

from dspy_diffusion_infill.search.budget import Meter
from dspy_diffusion_infill.search.fingerprint import digest
from dspy_diffusion_infill.search.journal import Journal, is_faithful
from dspy_diffusion_infill.search.metrics import name_of

KIND = "base call"
"""Of a record."""


class PaidCalls:
    """What a base asked its metric, and what that said.

    All that an earlier process paid for counts as spent from the beginning. A base that asks the same of the
    same prediction again gets the same answer for nothing, as often as it was paid for.

    Args:
        journal: None keeps nothing.
        meter: Counts what was paid for.
    """

    def __init__(self, journal: Journal | None, meter: Meter) -> None:
        self._journal, self._meter, self._lock = journal, meter, threading.Lock()
        self._left: dict[object, list[Any]] = {}
        records = journal.of_kind(KIND) if journal is not None else []
        self._numbers = itertools.count(len(records))
        meter.take(len(records))
        for place, record in records:
            meter.catch_up(tokens=record["tokens"], usd=record["usd"])
            if record["answer"] is not None:
                self._left.setdefault(place[1], []).append(record["answer"])

    def again(self, question: str) -> Any | None:
        """The answer that was paid for, if there is one left."""
        with self._lock:
            answers = self._left.get(question)
            answer = answers.pop(0) if answers else None
        return dspy.Prediction(**answer) if isinstance(answer, dict) else answer

    def keep(self, question: str, value: object, score: float | None) -> None:
        """Write down that a question was paid for, and its answer as far as JSON can hold it."""
        if self._journal is not None:
            answer = dict(value.items()) if isinstance(value, dspy.Prediction) else score
            used = {"tokens": self._meter.tokens, "usd": self._meter.usd}
            place = (KIND, question, next(self._numbers))
            self._journal.write(place, {"answer": answer if is_faithful(answer) else None, **used})

    def question(self, metric: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        """What a metric is asked, in short."""
        if self._journal is None:
            return ""
        named = {name: _plain(value) for name, value in kwargs.items()}
        return digest([name_of(metric), [_plain(value) for value in args], named])


def _plain(value: object) -> object:
    """Examples and predictions by what they hold, texts as they are, of a trace only that there is one."""
    if isinstance(value, dspy.Example):
        return value.toDict()
    return value if value is None or isinstance(value, str) else type(value).__name__
