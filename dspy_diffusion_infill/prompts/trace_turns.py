"""Traces as chat turns: the query, the response, and what was said of it in words."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import dspy

from dspy_diffusion_infill.prompts.canvas import Message
from dspy_diffusion_infill.prompts.render import render_turns
from dspy_diffusion_infill.traces import Trace

Turns = tuple[Message, ...]
Redact = Callable[[str], str]
"""Gives back a text without what must not leave this machine."""

RIGHT, PARTLY, WRONG = "The answer was right", "The answer was only partly right", "The answer was wrong"
KEEP = "Keep what the instructions say about this."
CHANGE = "Change the instructions so that it comes out right."
CUTS = (4096, 2048, 1024, 512, 256, 128, 64)
"""Characters that a turn is cut to, one after the other, until a trace fits beside the prompt."""


def trace_turns(predictor: dspy.Predict, trace: Trace, *, max_score: float = 1.0) -> Turns:
    """Lay out one trace as it happened: a user turn, an assistant turn, and a user turn that judges.

    Fields that the predictor has are laid out as the active adapter lays out a demo; a trace without any of
    them is shown as plain text. Of a call without an answer the judgement alone is shown.

    Source: which parts there are, arXiv:2602.18449 (abstract). The order and all wordings are ours.

    Args:
        predictor: Whose prompt the trace is shown beside. Not modified.
        trace: What happened.
        max_score: At this score an answer was right; at 0 and below it was wrong.
    """
    fields = {**trace.inputs, **trace.outputs}
    turns = (render_turns(predictor, fields) or _plain(trace)) if trace.outputs else ()
    said = judgement(trace, max_score)
    return (*turns, Message.text("user", said)) if said else turns


def judgement(trace: Trace, max_score: float) -> str:
    """Score and feedback in words: a failing trace asks for a change, a passing one for what works to stay.

    Example:
        >>> print(judgement(Trace({"q": "1+1"}, {"a": "3"}, 0, "It is 2."), 1.0))
        The answer was wrong: It is 2.
        Change the instructions so that it comes out right.
    """
    feedback = (trace.feedback or "").strip()
    if trace.score is None:
        return feedback
    verdict = RIGHT if trace.score >= max_score else WRONG if trace.score <= 0 else PARTLY
    wish = KEEP if verdict == RIGHT else CHANGE
    return f"{verdict}: {feedback}\n{wish}" if feedback else f"{verdict}.\n{wish}"


def arranged(traces: Iterable[Trace], *, max_score: float, seed: str) -> list[Trace]:
    """Shuffle traces, then let failing ones and all others take turns, a failing one first.

    However many a canvas has room for, it shows both kinds as long as there are both.
    """
    order = list(traces)
    random.Random(seed).shuffle(order)
    failing, others = list[Trace](), list[Trace]()
    for trace in order:
        fails = not trace.outputs or (trace.score is not None and trace.score < max_score)
        (failing if fails else others).append(trace)
    pairs = itertools.zip_longest(failing, others)
    return [trace for pair in pairs for trace in pair if trace is not None]


def redacted(turns: Turns, redact: Redact | None) -> Turns:
    """The turns without what the user's hook takes out."""
    if redact is None:
        return turns
    return tuple(Message.text(turn.role, redact(_text(turn))) for turn in turns)


def cut(turns: Turns, characters: int) -> Turns:
    """The turns with the middle of the longer ones left out."""
    return tuple(Message.text(turn.role, _shortened(_text(turn), characters)) for turn in turns)


def _shortened(text: str, characters: int) -> str:
    """Both ends of a text that is longer.

    Example:
        >>> _shortened("abcdefghijkl", 4)
        'ab [...] kl'
    """
    half = characters // 2
    return text if len(text) <= characters else f"{text[:half]} [...] {text[-half:]}"


def _plain(trace: Trace) -> Turns:
    return Message.text("user", _values(trace.inputs)), Message.text("assistant", _values(trace.outputs))


def _values(fields: Mapping[str, Any]) -> str:
    if len(fields) == 1:
        return str(*fields.values())
    return "\n".join(f"{name}: {value}" for name, value in fields.items())


def _text(turn: Message) -> str:
    """Turns beside a prompt hold no masks."""
    parts: Sequence[object] = turn.parts
    return "".join(map(str, parts))
