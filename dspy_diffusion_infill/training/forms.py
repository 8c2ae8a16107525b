"""The forms in which conversations are kept, each a row to its turns."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Set
from functools import partial
from typing import Any, get_args

import numpy as np

from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.judges.templates import Rubric, template
from dspy_diffusion_infill.prompts.canvas import Role

Row = Mapping[str, Any]
Turns = list[dict[str, str]]
"""`role` and `content` of each turn."""
Form = Callable[[Row], Turns]


class _Unfit(Exception):  # noqa: N818  (never leaves this module)
    """What a value must be, and what it is."""


def form_of(columns: Set[str]) -> Form | None:
    """The first form that has all its columns; None if there is none."""
    return next((form for needs, form in _FORMS if columns >= set(needs)), None)


def known_forms() -> str:
    """Their columns, to be read."""
    return "; ".join(", ".join(needs) for needs, _ in _FORMS)


def conversation(row: Row, number: int, *, form: Form, source: str) -> dict[str, Turns]:
    """A row's turns.

    Args:
        row: As it was read.
        number: Of the row, from 0.
        form: Of the source.
        source: Named in errors.

    Raises:
        SettingsError: If the row does not have its form.
    """
    try:
        return {"messages": form(row)}
    except _Unfit as unfit:
        raise SettingsError(
            f"{unfit}, in row {number + 1} of {source!r}. Correct that row, or leave it out."
        ) from unfit


def _text(value: Any, name: str) -> str:
    """A label may be a number, and a content may come in parts."""
    if isinstance(value, float) and math.isfinite(value):
        return _number(value)
    if isinstance(value, bool | int):
        return str(value)
    if isinstance(value, list) and value and all(_is_text_part(part) for part in value):
        return "".join(part["text"] for part in value)
    if not isinstance(value, str):
        raise _Unfit(f"{name} must be text, a number or parts of text; got {_short(value)}")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise _Unfit(f"{name} must be text that UTF-8 can hold, without lone surrogates; got {_short(value)}")
    return value


def _number(value: float) -> str:
    """As it was written: a column of floats makes 4 a 4.0, and one of float32 adds digits to 0.1."""
    if value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    single = np.float32(value) if abs(value) < 2**127 else value
    return str(single if float(single) == value else value)


def _is_text_part(part: Any) -> bool:
    return isinstance(part, Mapping) and isinstance(part.get("text"), str)


def _chat(turns: Any, name: str = "messages") -> Turns:
    if not isinstance(turns, list):
        raise _Unfit(f"{name} must be a list of turns; got {_short(turns)}")
    return [_turn(turn) for turn in turns]


def _turn(turn: Any) -> dict[str, str]:
    if not isinstance(turn, Mapping):
        raise _Unfit(f"a turn must have role and content; got {_short(turn)}")
    role = turn.get("role")
    if role not in get_args(Role):
        raise _Unfit(f"role must be one of {', '.join(map(repr, get_args(Role)))}; got {role!r}")
    if calls := turn.get("tool_calls"):
        raise _Unfit(f"a turn must say all in its content, with no tool_calls; got {_short(calls)}")
    return {"role": str(role), "content": _text(turn.get("content"), f"content of the {role} turn")}


def _pair(row: Row, prompt: str, response: str) -> Turns:
    return [*_side(row[prompt], prompt, "user"), *_side(row[response], response, "assistant")]


def _side(value: Any, name: str, role: Role) -> Turns:
    """A text, or turns."""
    if (
        isinstance(value, list)
        and value
        and all(isinstance(turn, Mapping) and "role" in turn for turn in value)
    ):
        return _chat(value, name)
    return [{"role": role, "content": _text(value, name)}]


def _instructed(row: Row) -> Turns:
    """As Alpaca has it: what the instruction is about, if anything, stands apart."""
    about = row.get("input")
    asked = _text(row["instruction"], "instruction")
    whole = f"{asked}\n\n{_text(about, 'input')}" if about not in (None, "") else asked
    return [
        {"role": "user", "content": whole},
        {"role": "assistant", "content": _text(row["output"], "output")},
    ]


def _feedback(row: Row) -> Turns:
    """As Feedback Collection prints a record (arXiv:2604.03677, App. J.1)."""
    values = {name: _text(row[name], name) for name in _RECORD}
    rubric = Rubric(values["criteria"], {score: values[f"score{score}_description"] for score in range(1, 6)})
    asking = template("judge").with_rubric(rubric)
    answer = f"{values['feedback']} [RESULT] {values['score'].removesuffix('.0')}"  # a float, as text
    return [
        {"role": "user", "content": asking.page(asking.text, values)},
        {"role": "assistant", "content": answer},
    ]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


_RUBRIC = [f"score{score}_description" for score in range(1, 6)]
_RECORD = ["instruction", "response", "reference_answer", "criteria", *_RUBRIC, "feedback", "score"]
_FORMS: tuple[tuple[list[str], Form], ...] = (
    (["messages"], lambda row: _chat(row["messages"])),
    (_RECORD, _feedback),
    (["prompt", "response"], partial(_pair, prompt="prompt", response="response")),
    (["prompt", "completion"], partial(_pair, prompt="prompt", response="completion")),
    (["instruction", "output"], _instructed),
)
