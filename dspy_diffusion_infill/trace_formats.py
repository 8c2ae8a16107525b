"""Traces as other tools keep them: DSPy's traces and histories, MLflow, dialogues in tau-bench's style.

Pure: no dspy, no torch, and no mlflow: what these tools give is read by its shape.
"""

from __future__ import annotations

import codecs
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.traces import Log, Trace, gather

TURN = re.compile(r"(\Asystem|\Adeveloper|^user|^assistant|^tool): ?", re.MULTILINE)
"""How a turn of a transcript begins; in the midst of one, `system:` is text as any other."""
SYSTEM = ("system", "developer")
NOTHING = ("", "None")
"""What some logs write for a turn that only calls a tool."""


class Program(Protocol):
    """A DSPy program, as far as it is asked here."""

    def named_predictors(self) -> list[tuple[str, Any]]: ...


def from_dspy(
    trace: Iterable[tuple[Any, Mapping[str, Any], Any]],
    program: Program,
    *,
    score: float | None = None,
    feedback: str | None = None,
) -> list[Trace]:
    """Read `dspy.settings.trace`: one trace for each call of a predictor.

    Args:
        trace: Of one run of the program.
        program: The one that ran; a call of another program's predictor is read without a name.
        score: Of that run.
        feedback: On that run.

    Example:
        >>> with dspy.context(trace=[]):  # doctest: +SKIP
        ...     answer = program(question="Who wrote it?")
        ...     traces = from_dspy(dspy.settings.trace, program, score=0, feedback="She did not.")
    """
    names = {id(predictor): name for name, predictor in program.named_predictors()}
    return [
        Trace(dict(inputs), dict(outputs.items()), score, feedback, names.get(id(predictor)))
        for predictor, inputs, outputs in trace
    ]


def from_history(history: Sequence[Mapping[str, Any]]) -> Log:
    """Read a DSPy history (`lm.history`, `program.history`): the last turn that was sent, and the answer.

    A history holds messages as an adapter wrote them, not fields, and no scores. They are shown as they are.
    """
    return gather(enumerate(history, start=1), _of_call, "the history")


def from_mlflow(traces: Iterable[Any]) -> Log:
    """Read MLflow traces: inputs and outputs of the root span, and what was said of it.

    The score is the mean of the assessments whose value is a number or a boolean; the feedback is every
    value that is a text, under the assessment's name, and every rationale. Those that were overridden, and
    expectations, are left out.

    Args:
        traces: What `mlflow.search_traces(return_type="list")` returns, or their JSON form (`to_dict()`).
    """
    return gather(enumerate(traces, start=1), _of_mlflow, "MLflow")


def read_dialogues(path: str | os.PathLike[str], *, score: str = "reward", feedback: str = "feedback") -> Log:
    """Read dialogues with tools, as tau-bench keeps them: JSON lines, or one JSON list.

    Each record holds its turns as `traj` or `messages` (role, content, tool_calls), or as a `transcript` of
    lines that begin with a role. The last answer in words is the output `reply`; all before it is the input
    `conversation`, without system turns: the instructions that are refined stand in their place.

    Args:
        path: Of the file.
        score: Key of the outcome; may be absent or null.
        feedback: Key of a text, likewise.

    Returns:
        The traces, and the records that hold none, with line and reason.
    """

    def make(record: Any) -> Trace:
        found = json.loads(record) if isinstance(record, bytes) else record
        if not isinstance(found, Mapping):
            raise SettingsError("It must be a JSON object.")
        conversation, reply = _last_reply(_turns(found))
        return Trace({"conversation": conversation}, {"reply": reply}, found.get(score), found.get(feedback))

    rows = _records(Path(path).read_bytes().removeprefix(codecs.BOM_UTF8))
    numbered = ((n, row) for n, row in enumerate(rows, 1) if not isinstance(row, bytes) or row.strip())
    return gather(numbered, make, os.fspath(path))


def _records(text: bytes) -> list[Any]:
    """Those of one JSON list; of anything else, and of a list that is damaged, the lines."""
    try:
        found = json.loads(text) if text.lstrip().startswith(b"[") else None
    except (ValueError, RecursionError):
        found = None
    return text.split(b"\n") if found is None else found


def _of_call(entry: Mapping[str, Any]) -> Trace:
    messages = entry.get("messages") or [{"role": "user", "content": entry.get("prompt")}]
    outputs = entry.get("outputs") or []
    first = outputs[0] if outputs else None
    answer = first.get("text") if isinstance(first, Mapping) else first
    asked = _text(messages[-1].get("content"))
    if not asked or not isinstance(answer, str) or not answer:
        raise SettingsError("It must hold a message that was sent and an answer in words.")
    return Trace({"prompt": asked}, {"response": answer})


def _of_mlflow(trace: Any) -> Trace:
    plain: Any = trace if isinstance(trace, Mapping) else trace.to_dict()
    spans = plain.get("data", {}).get("spans", [])
    roots = [span for span in spans if not (span.get("parent_span_id") or span.get("parent_id"))]
    if not roots:
        raise SettingsError("It must hold a root span; it has none (include_spans=True).")
    attributes = roots[0].get("attributes", {})
    inputs, outputs = (_attribute(attributes, f"mlflow.span{side}") for side in ("Inputs", "Outputs"))
    named = _named(inputs, "inputs") if inputs else {}
    if not named:
        raise SettingsError("Its root span has no inputs.")
    said_of_it = plain.get("info", {}).get("assessments") or []
    found = [one for one in said_of_it if "feedback" in one and one.get("valid", True)]
    values = [(one.get("assessment_name", ""), (one["feedback"] or {}).get("value")) for one in found]
    scores = [float(value) for _, value in values if isinstance(value, bool | int | float)]
    said = [f"{name}: {value}" for name, value in values if isinstance(value, str)]
    said += [one["rationale"] for one in found if one.get("rationale")]
    return Trace(
        named,
        _named(outputs, "outputs"),
        sum(scores) / len(scores) if scores else None,
        " ".join(said) or None,
    )


def _attribute(attributes: Mapping[str, Any], name: str) -> Any:
    """Attributes of spans are JSON in a text."""
    value = attributes.get(name)
    return json.loads(value) if isinstance(value, str) else value


def _named(value: Any, name: str) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return {key: inner for key, inner in value.items() if inner is not None}
    return {} if value is None else {name: value}


@dataclass(frozen=True, slots=True)
class _Turn:
    role: str
    words: str
    calls: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        return "\n".join(part for part in (self.words, *self.calls) if part)


def _turns(record: Mapping[str, Any]) -> list[_Turn]:
    if isinstance(transcript := record.get("transcript"), str):
        head, *pieces = TURN.split(transcript.lstrip())
        if head:
            raise SettingsError(f"Its transcript must begin with a role; it begins with {head[:20]!r}.")
        return [_written(role, text) for role, text in zip(pieces[::2], pieces[1::2], strict=True)]
    turns = record.get("messages") if record.get("traj") is None else record["traj"]
    if not isinstance(turns, list) or not all(isinstance(turn, Mapping) for turn in turns):
        raise SettingsError("It must hold 'traj' or 'messages', a list of turns, or a 'transcript'.")
    return [_turn(cast(Mapping[str, Any], turn)) for turn in turns]


def _written(role: str, text: str) -> _Turn:
    """A turn of a transcript, where a call is written as it is shown here."""
    text = text.strip()
    return _Turn(role, "", (text,)) if text.startswith("[call ") else _Turn(role, _words(text))


def _turn(turn: Mapping[str, Any]) -> _Turn:
    calls = [call.get("function", {}) for call in turn.get("tool_calls") or []]
    calls += [old] if (old := turn.get("function_call")) else []  # OpenAI's, before there were tools
    called = tuple(f"[call {call.get('name')} {call.get('arguments')}]" for call in calls)
    return _Turn(str(turn.get("role")).lower(), _words(_text(turn.get("content"))), called)


def _words(text: str) -> str:
    return "" if text.strip() in NOTHING else text


def _last_reply(turns: Sequence[_Turn]) -> tuple[str, str]:
    """All before the last answer in words, as lines that begin with a role; and that answer."""
    shown = [turn for turn in turns if turn.role not in SYSTEM and turn.text]
    replies = [n for n, turn in enumerate(shown) if turn.role == "assistant" and turn.words]
    if not replies:
        raise SettingsError("It must hold an answer of the assistant in words.")
    before = shown[: replies[-1]]
    if not before:
        raise SettingsError("It must hold a turn before the assistant's last answer.")
    return "\n".join(f"{turn.role}: {turn.text}" for turn in before), shown[replies[-1]].text


def _text(content: object) -> str:
    """A message's text; images and files are left out."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(str(part.get("text") or "") for part in parts if isinstance(part, Mapping))
