"""Conversations to train on, read from files or the hub."""

from __future__ import annotations

import glob
import json
from functools import partial
from pathlib import Path

from datasets import Dataset, Features, IterableDataset, Value, load_dataset
from datasets.exceptions import DatasetGenerationError
from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES
from datasets.table import CastError

from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.training.converting import Converted
from dspy_diffusion_infill.training.forms import conversation, form_of, known_forms

Rows = Dataset | IterableDataset

_FILES = {".json": "json", ".jsonl": "json", ".parquet": "parquet"}
_TURNS = Features({"messages": [{"role": Value("string"), "content": Value("string")}]})
UNREADABLE = (OSError, ValueError, DatasetGenerationError, StopIteration)
"""What `datasets` raises for data that it cannot read."""


def read(source: str, *, streaming: bool = False) -> Rows:
    """Read conversations, whatever form they are kept in.

    The columns tell the form: `messages` (role and content of each turn); `prompt` with `response` or
    `completion`, each a text or turns; `instruction` with `output`, as in the hub's Feedback Collection, and
    with `input` or without, as Alpaca has it; or the fields of a feedback record (`instruction`, `response`,
    `reference_answer`, `criteria`, `score1_description` to `score5_description`, `feedback`, `score`). A text
    may be a number, or a list of parts with `text`. Other columns are left out.

    Args:
        source: A .json, .jsonl or .parquet file; a folder, all of whose files of one of these kinds are read,
            however deep they lie and however they are named; or a hub id, of which the "train" split is read.
        streaming: Read rows as they are needed instead of converting all of them first.

    Returns:
        Rows with one column, `messages`.

    Raises:
        SettingsError: If there is no such source, it is empty, it has none of the forms, or a row has not.
    """
    if not source:
        raise SettingsError("data must name a file, a folder or a hub id; got an empty text.")
    try:
        rows = _load(Path(source).expanduser(), source, streaming)
        columns = frozenset(next(iter(rows), {}))
    except UNREADABLE as error:
        raise SettingsError(
            "data must be a .json, .jsonl or .parquet file, a folder of them, or a hub id; got "
            f"{source!r}: {_reason(Path(source).expanduser(), error)}"
        ) from error
    if not columns:
        raise SettingsError(f"data must hold at least one row; {source!r} holds none.")
    form = form_of(columns)
    if form is None:
        raise SettingsError(
            f"data must have the columns of one of these forms: {known_forms()}; "
            f"{source!r} has {', '.join(sorted(columns))}."
        )
    to_turns = Converted(partial(conversation, form=form, source=source))
    return rows.map(to_turns, with_indices=True, remove_columns=sorted(columns), features=_TURNS)


def _load(path: Path, source: str, streaming: bool) -> Rows:
    if path.is_dir() or path.suffix.lower() in _FILES:
        return _load_files(path, streaming)
    if source in _PACKAGED_DATASETS_MODULES:  # `datasets` would read every file of that kind below here
        raise FileNotFoundError("there is no such folder.")
    return load_dataset(source, split="train", streaming=streaming)  # pyright: ignore[reportReturnType]


def _load_files(path: Path, streaming: bool) -> Rows:
    """All of a folder's files, however they are named: `datasets` would take some for another split."""
    files = _files(path) if path.is_dir() else [path]
    if not all(file.is_file() for file in files):
        raise FileNotFoundError("there is no such file.")
    builders = sorted({_FILES[file.suffix.lower()] for file in files})
    if not builders:
        raise FileNotFoundError("it holds no such file.")
    if len(builders) > 1:
        raise ValueError("it holds JSON and Parquet files. Give each kind a folder of its own, as a source.")
    filled = [glob.escape(str(file)) for file in files if file.stat().st_size]
    if not filled:
        return Dataset.from_list([])
    return load_dataset(builders[0], data_files=filled, split="train", streaming=streaming)  # pyright: ignore[reportReturnType]


def _files(folder: Path) -> list[Path]:
    """However deep they lie; hidden ones are some program's own."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in _FILES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def _reason(path: Path, error: Exception) -> str:
    """Why a source cannot be read: its first broken line, or else what the library says."""
    if path.suffix.lower() == ".jsonl" and path.is_file() and (fault := _fault(path)):
        return fault
    if isinstance(error.__cause__, CastError):
        return "its files have different columns. Give each file of its own form as a source."
    return str(error.__cause__ or error).partition("\n")[0]


def _fault(path: Path) -> str | None:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                found = json.loads(line.decode("utf-8-sig")) if line.strip() else {}
            except UnicodeDecodeError:
                return f"line {number} is not UTF-8. Save the file as UTF-8."
            except ValueError as error:
                return f"line {number} is not JSON: {error}. Correct it, or leave it out."
            if not isinstance(found, dict):
                return f"line {number} is no object with columns. Correct it, or leave it out."
    return None
