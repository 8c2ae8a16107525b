"""Conversations to train on, read from files or the hub."""

from __future__ import annotations

import glob
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, IterableDataset, Value, load_dataset
from datasets.exceptions import DatasetGenerationError
from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES
from datasets.table import CastError

from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.training.converting import Converted, code
from dspy_diffusion_infill.training.forms import Form, Turns, conversation, form_of, known_forms
from dspy_diffusion_infill.training.json_files import COLUMN, json_rows

Rows = Dataset | IterableDataset

_FILES = {".json": "json", ".jsonl": "json", ".parquet": "parquet"}
_TURNS = Features({"messages": [{"role": Value("string"), "content": Value("string")}]})
LOOK = 100
"""Rows whose columns tell the form."""
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
        first = list(islice(rows, LOOK))
        columns = frozenset[str]().union(*map(_plain, first))
    except UNREADABLE as error:
        told = error.__cause__ if isinstance(error, DatasetGenerationError) else error
        if isinstance(told, SettingsError):
            raise told from None
        raise SettingsError(
            "data must be a .json, .jsonl or .parquet file, a folder of them, or a hub id; got "
            f"{source!r}: {_reason(error)}"
        ) from error
    if not columns:
        raise SettingsError(f"data must hold at least one row; {source!r} holds none.")
    form = form_of(columns)
    if form is None:
        raise SettingsError(
            f"data must have the columns of one of these forms: {known_forms()}; "
            f"{source!r} has {', '.join(sorted(columns))}."
        )
    to_turns = Converted(partial(_conversation, form=form, source=source))
    return rows.map(to_turns, with_indices=True, remove_columns=sorted(first[0]), features=_TURNS)


def _plain(row: Mapping[str, Any]) -> Mapping[str, Any]:
    return json.loads(row[COLUMN]) if row.keys() == {COLUMN} else row


def _conversation(row: Mapping[str, Any], number: int, *, form: Form, source: str) -> dict[str, Turns]:
    return conversation(defaultdict(lambda: None, _plain(row)), number, form=form, source=source)


def _load(path: Path, source: str, streaming: bool) -> Rows:
    if path.is_dir() or path.suffix.lower() in _FILES:
        return _load_files(path, source, streaming)
    if source in _PACKAGED_DATASETS_MODULES:  # `datasets` would read every file of that kind below here
        raise FileNotFoundError("there is no such folder.")
    return load_dataset(source, split="train", streaming=streaming)  # pyright: ignore[reportReturnType]


def _load_files(path: Path, source: str, streaming: bool) -> Rows:
    """All of a folder's files, however they are named: `datasets` would take some for another split."""
    files = _files(path) if path.is_dir() else [path]
    if not all(file.is_file() for file in files):
        raise FileNotFoundError("there is no such file.")
    builders = sorted({_FILES[file.suffix.lower()] for file in files})
    if not builders:
        raise FileNotFoundError("it holds no such file.")
    if len(builders) > 1:
        raise ValueError("it holds JSON and Parquet files. Give each kind a folder of its own, as a source.")
    filled = [file for file in files if not _is_blank(file)]
    if not filled:
        return Dataset.from_list([])
    if builders == ["json"]:
        return _load_json(filled, source, streaming)
    names = [glob.escape(str(file)) for file in filled]
    return load_dataset("parquet", data_files=names, split="train", streaming=streaming)  # pyright: ignore[reportReturnType]


def _load_json(files: Sequence[Path], source: str, streaming: bool) -> Rows:
    known = [(str(file.absolute()), (found := file.stat()).st_size, found.st_mtime_ns) for file in files]
    kind = IterableDataset if streaming else Dataset
    return kind.from_generator(
        json_rows,
        features=Features({COLUMN: Value("string")}),
        gen_kwargs={"files": known, "source": source, "code": code()},
    )  # pyright: ignore[reportReturnType]


def _is_blank(file: Path) -> bool:
    return file.stat().st_size < 64 and file.read_bytes().split() in ([], [b"[]"], [b"[", b"]"])


def _files(folder: Path) -> list[Path]:
    """However deep they lie; hidden ones are some program's own."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in _FILES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def _reason(error: Exception) -> str:
    if isinstance(error.__cause__, CastError):
        return "its files have different columns. Give each file of its own form as a source."
    return str(error.__cause__ or error).partition("\n")[0]
