"""Rows of data: from a JSONL or CSV file, a folder, or the Hugging Face hub."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from dspy_diffusion_infill.errors import MissingExtraError, SettingsError


@dataclass(frozen=True, slots=True)
class Row:
    """Values by column, and where they stand."""

    values: Mapping[str, Any]
    place: str
    """For errors, such as `reviews.csv, line 3`."""


def read_rows(source: str, *, limit: int | None = None) -> list[Row]:
    """Read rows.

    Args:
        source: A .jsonl file, an object a line; a .csv file with a header, all of whose values are text; or a
            hub id or a folder as `datasets` reads it, followed by `:split` or `:config:split` where it is not
            the split "train".
        limit: Rows that are read at most; None for all.

    Raises:
        SettingsError: If there is no such source, a line cannot be read, or there are no rows.
        MissingExtraError: If it is a hub id or a folder, and `datasets` is not installed.
    """
    if not source:
        raise SettingsError("Data must be in a file, a folder or on the hub; got no name.")
    path, is_file = _look(source)
    reader = {".jsonl": _jsonl, ".csv": _csv}.get(path.suffix.lower())
    if reader is None and is_file:
        raise SettingsError(f"Data must be in a .jsonl or a .csv file; got {source!r}.")
    if reader is not None and not is_file:
        reason = "it is a folder" if path.is_dir() else "no such file"
        raise SettingsError(f"Data must be in a file that is there; got {source!r}: {reason}.")
    rows = list(itertools.islice(reader(path) if reader else _hub(source), limit))
    if not rows:
        raise SettingsError(f"Data must hold at least one row; {source!r} holds none.")
    return rows


def _look(source: str) -> tuple[Path, bool]:
    """A path, and whether there is a file."""
    try:
        path = Path(source).expanduser()
        return path, path.is_file()
    except (OSError, RuntimeError) as error:  # a name too long, or somebody who has no home
        reason = getattr(error, "strerror", None) or error
        raise SettingsError(f"Data must be in a file that is there; got {source[:60]!r}: {reason}") from error


def _jsonl(path: Path) -> Iterator[Row]:
    for number, line in enumerate(_lines(path), start=1):
        place = f"{path}, line {number}"
        if not line.strip():
            continue
        try:
            values = json.loads(line)
            json.dumps(values, ensure_ascii=False).encode()  # half a surrogate pair can be sent nowhere
        except (ValueError, RecursionError) as error:
            raise SettingsError(f"Every line must be a JSON object; {place} is not: {error}.") from error
        if not isinstance(values, dict):
            raise SettingsError(f"Every line must be a JSON object; {place} is a {type(values).__name__}.")
        yield Row(values, place)


def _csv(path: Path) -> Iterator[Row]:
    csv.field_size_limit(2**31 - 1)  # of the whole process; what a C long holds on every system
    reader = csv.DictReader(_lines(path), strict=True)
    try:
        header = list(reader.fieldnames or ())
        if len(set(header)) != len(header):
            raise SettingsError(f"The columns of a .csv file must have different names; got {header}.")
        for values in reader:
            place = f"{path}, line {reader.line_num}"
            if None in values or None in values.values():
                raise SettingsError(f"A row must have {len(header)} values, one a column; {place} does not.")
            yield Row(values, place)
    except csv.Error as error:
        # the reader within has counted the line that it failed on
        raise SettingsError(f"{path}, line {reader.reader.line_num}, is no CSV: {error}.") from error


def _lines(path: Path) -> Iterator[str]:
    try:
        # a line may hold what Unicode takes for a line end; a byte order mark is no part of the text
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from file
    except UnicodeDecodeError as error:
        raise SettingsError(f"Data must be UTF-8 text; {str(path)!r} is not: {error}.") from error


def _hub(source: str) -> Iterator[Row]:
    try:
        from datasets import load_dataset
        from datasets.exceptions import DatasetsError
    except ImportError as error:
        raise MissingExtraError(f"Reading {source!r} from the hub", "train") from error
    name, *parts = source.split(":")
    *config, split = parts or ["train"]
    try:
        found = cast(Iterable[Any], load_dataset(name, *config, split=split))
    except (FileNotFoundError, ConnectionError, ValueError, DatasetsError) as error:
        raise SettingsError(
            f"Data must be a .jsonl or .csv file, a folder of data, or a hub id, perhaps with :split or "
            f":config:split behind it; got {source!r}: {error}"
        ) from error
    return (Row(values, f"{source}, row {number}") for number, values in enumerate(found))
