"""Interaction traces: what a program was asked, what it answered, and what someone thought of it.

Pure: no dspy, no torch. Other tools' formats are read in `trace_formats`.
"""

from __future__ import annotations

import json
import logging
import math
import numbers
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.secret_forms import SECRET

logger = logging.getLogger(__name__)

Record = TypeVar("Record")
ConditionOn = Literal["examples", "traces", "both"]
"""What a canvas shows beside the prompt: labelled examples, what happened, or both in turn."""


@dataclass(frozen=True, slots=True)
class Trace:
    """One call of a program or of one of its predictors.

    Source: prompt infilling conditioned on traces (arXiv:2602.18449, abstract): user query, model response,
    optional feedback. Differs: the score is ours, and turns into words where the canvas is laid out.

    Raises:
        SettingsError: If a field breaks its rule, or there is neither an output nor any feedback.

    Example:
        >>> Trace({"question": "Which day is it?"}, {"answer": "Blue."}, score=0, feedback="A day!").score
        0.0
    """

    inputs: Mapping[str, Any]
    """By field name, as the program has them; a trace whose names are others is shown as plain text."""
    outputs: Mapping[str, Any]
    """Likewise; empty if the call gave no answer."""
    score: float | None = None
    """In the metric's own scale, higher is better; None if nobody scored it."""
    feedback: str | None = None
    """What someone, or a metric, said of the answer."""
    predictor: str | None = None
    """Name of the predictor that was called; None: the program, or any predictor that has these fields."""

    def __post_init__(self) -> None:
        for name in ("inputs", "outputs"):
            value = getattr(self, name)
            if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
                raise SettingsError(f"{name} must be values by field name; got {_short(value)}.")
        for name in ("feedback", "predictor"):
            if not isinstance(value := getattr(self, name), str | None):
                raise SettingsError(f"{name} must be a text, or None; got {_short(value)}.")
        object.__setattr__(self, "score", _score(self.score))
        if not self.outputs and not self.feedback:
            raise SettingsError("A trace must hold an output or feedback; got neither.")

    def texts(self) -> Iterator[str]:
        """Everything it holds, as text."""
        yield from map(str, (*self.inputs.values(), *self.outputs.values(), self.feedback or ""))


@dataclass(frozen=True, slots=True)
class Refused:
    """A record that is no trace."""

    line: int
    """In the file, or the number of the record where there are no lines; from 1."""
    reason: str


@dataclass(frozen=True, slots=True)
class Log:
    """What was read of a log: every record is in one of the two."""

    traces: list[Trace]
    refused: list[Refused]


def read_traces(
    path: str | os.PathLike[str],
    *,
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
    score: str = "score",
    feedback: str = "feedback",
) -> Log:
    """Read traces from JSON lines.

    Args:
        path: Of a file in UTF-8, one object a line; empty lines are passed over.
        inputs: Keys of the objects that are inputs of the program, by the names of its fields. None: each
            object holds `inputs`, an object itself or a text.
        outputs: Likewise.
        score: Key of a number or a boolean; may be absent or null in an object.
        feedback: Key of a text, likewise.

    Returns:
        The traces, and the lines that hold none, with the reason. These are logged as a warning, too.

    Raises:
        SettingsError: If inputs or outputs are one text.

    Example:
        >>> log = read_traces("chat.jsonl", inputs=["question"], outputs=["answer"])  # doctest: +SKIP
        >>> log.refused  # doctest: +SKIP
        [Refused(line=7, reason="It lacks 'answer'.")]
    """
    for name, keys in (("inputs", inputs), ("outputs", outputs)):
        if isinstance(keys, str):
            raise SettingsError(f"{name} must be a list of keys; got {keys!r}. Say [{keys!r}].")

    seen = {"score", "feedback"}  # which may be nowhere; what the user named is somewhere

    def make(line: bytes) -> Trace:
        record = json.loads(line)
        if not isinstance(record, Mapping):
            raise SettingsError(f"It must be a JSON object; got {_short(record)}.")
        seen.update(record)
        return Trace(
            _fields(record, "inputs", inputs),
            _fields(record, "outputs", outputs),
            record.get(score),
            record.get(feedback),
        )

    with open(path, "rb") as file:
        lines = ((number, line) for number, line in enumerate(file, start=1) if line.strip())
        log = gather(lines, make, os.fspath(path))
    if unknown := sorted({score, feedback} - seen):
        logger.warning("No record of %s has %s.", os.fspath(path), " or ".join(map(repr, unknown)))
    return log


def gather(records: Iterable[tuple[int, Record]], make: Callable[[Record], Trace], source: str) -> Log:
    """Make traces of numbered records, and list those of which none can be made.

    Args:
        records: With their lines.
        make: Raises a `ValueError` that says what is wrong with a record.
        source: Named in the warning.
    """
    log = Log([], [])
    for line, record in records:
        try:
            log.traces.append(make(record))
        except ValueError as error:
            log.refused.append(Refused(line, str(error)))
        # of another shape inside
        except (AttributeError, KeyError, OverflowError, RecursionError, TypeError) as error:
            log.refused.append(Refused(line, f"It is of another shape: {type(error).__name__}: {error}"))
    if log.refused:
        first, total = log.refused[0], len(log.traces) + len(log.refused)
        logger.warning(
            "%d of %d records of %s are no traces, the first on line %d: %s",
            len(log.refused), total, source, first.line, first.reason,
        )  # fmt: skip
    return log


def hide_secrets(text: str) -> str:
    """Put `[hidden]` in place of what looks like a key, a token or a password: a hook for `redact`.

    It knows common forms and no others: names, addresses and numbers stay. Write your own where that matters.

    Example:
        >>> hide_secrets("I set OPENAI_API_KEY=sk-abc123def456ghi789, why does it fail?")
        'I set OPENAI_API_KEY[hidden], why does it fail?'
    """
    return SECRET.sub(r"\g<server>\g<scheme>\g<cookie>\g<flag>\g<name>[hidden]", text)


def _fields(record: Mapping[str, Any], name: str, keys: Sequence[str] | None) -> dict[str, Any]:
    """The values that are not null; without keys those of the object, or the text, called `name`."""
    wanted = [name] if keys is None else keys
    if missing := [key for key in wanted if key not in record]:
        raise SettingsError(f"It lacks {', '.join(map(repr, missing))}.")
    found = {key: record[key] for key in wanted if record[key] is not None}
    if keys is None and isinstance(found.get(name), Mapping):
        found = {key: value for key, value in found[name].items() if value is not None}
    if name == "inputs" and not found:
        raise SettingsError("Its inputs are empty.")
    return found


def _score(value: object) -> float | None:
    if value is None:
        return None
    try:
        number = float(value) if isinstance(value, numbers.Real) else math.nan
    except OverflowError:  # a whole number of hundreds of digits
        number = math.inf
    if not math.isfinite(number):
        raise SettingsError(f"score must be a finite number, or None; got {_short(value)}.")
    return number


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
