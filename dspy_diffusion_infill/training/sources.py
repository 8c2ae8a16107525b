"""Conversations to train on: Feedback Collection, chats, prompts with responses; from files or the hub."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, get_args

from datasets import Dataset, IterableDataset, load_dataset

from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.judges.templates import Rubric, template
from dspy_diffusion_infill.prompts.canvas import Role

Rows = Dataset | IterableDataset
Row = Mapping[str, Any]
Turns = list[dict[str, str]]
"""`role` and `content` of each turn."""

_FILES = {".json": "json", ".jsonl": "json", ".parquet": "parquet"}


def read(source: str, *, streaming: bool = False) -> Rows:
    """Read conversations, whatever form they are kept in.

    The columns tell the form: `messages` (role and content of each turn); `prompt` with `response` or
    `completion`; `instruction` with `output`, as in the hub's Feedback Collection; or the fields of a
    feedback record (`instruction`, `response`, `reference_answer`, `criteria`, `score1_description` to
    `score5_description`, `feedback`, `score`). Other columns are left out.

    Args:
        source: A .json, .jsonl or .parquet file, a folder of such files, or a hub id. Its "train" split.
        streaming: Read rows as they are needed instead of converting all of them first.

    Returns:
        Rows with one column, `messages`.

    Raises:
        SettingsError: If there is no such source, it is empty, or its columns have none of the forms.
    """
    rows = _load(source, streaming)
    columns = _columns(rows, source)
    form = next((form for needs, form in _FORMS if columns.issuperset(needs)), None)
    if form is None:
        known = "; ".join(", ".join(needs) for needs, _ in _FORMS)
        raise SettingsError(
            f"data must have the columns of one of these forms: {known}; "
            f"{source!r} has {', '.join(sorted(columns))}."
        )
    return rows.map(partial(_row, form=form), remove_columns=sorted(columns))


def _load(source: str, streaming: bool) -> Rows:
    path = Path(source).expanduser()
    try:
        if builder := _FILES.get(path.suffix):
            return load_dataset(builder, data_files=str(path), split="train", streaming=streaming)  # pyright: ignore[reportReturnType]
        return load_dataset(source, split="train", streaming=streaming)  # pyright: ignore[reportReturnType]
    except (FileNotFoundError, ConnectionError, ValueError) as error:
        raise SettingsError(
            f"data must be a .json, .jsonl or .parquet file, a folder of them, or a hub id; got {source!r}: "
            f"{error}"
        ) from error


def _columns(rows: Rows, source: str) -> frozenset[str]:
    for row in rows:
        return frozenset(row)
    raise SettingsError(f"data must hold at least one row; {source!r} holds none.")


def _row(row: Row, form: Callable[[Row], Turns]) -> dict[str, Turns]:
    return {"messages": form(row)}


def _chat(row: Row) -> Turns:
    for turn in row["messages"]:
        if turn["role"] not in get_args(Role):
            raise SettingsError(
                f"role must be one of {', '.join(map(repr, get_args(Role)))}; got {turn['role']!r}. "
                "Leave out conversations with other turns, or write those as text of a user turn."
            )
    return [{"role": turn["role"], "content": turn["content"]} for turn in row["messages"]]


def _pair(row: Row, prompt: str, response: str) -> Turns:
    return [{"role": "user", "content": row[prompt]}, {"role": "assistant", "content": row[response]}]


def _feedback(row: Row) -> Turns:
    """As Feedback Collection prints a record (arXiv:2604.03677, App. J.1)."""
    rubric = Rubric(row["criteria"], {score: row[f"score{score}_description"] for score in range(1, 6)})
    asking = template("judge").with_rubric(rubric)
    answer = f"{row['feedback']} [RESULT] {row['score']}"
    return [
        {"role": "user", "content": asking.page(asking.text, row)},
        {"role": "assistant", "content": answer},
    ]


_RUBRIC = [f"score{score}_description" for score in range(1, 6)]
_FORMS: tuple[tuple[list[str], Callable[[Row], Turns]], ...] = (
    (["messages"], _chat),
    (
        ["instruction", "response", "reference_answer", "criteria", *_RUBRIC, "feedback", "score"],
        _feedback,
    ),
    (["prompt", "response"], partial(_pair, prompt="prompt", response="response")),
    (["prompt", "completion"], partial(_pair, prompt="prompt", response="completion")),
    (["instruction", "output"], partial(_pair, prompt="instruction", response="output")),
)
