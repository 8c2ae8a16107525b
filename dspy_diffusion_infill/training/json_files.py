"""Rows of JSON files, as they are written: Arrow, left to infer types, takes texts for dates."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dspy_diffusion_infill.errors import SettingsError

COLUMN = "row as JSON"
"""Holds a row, as the JSON it came as."""


def json_rows(files: Sequence[tuple[str, int, int]], *, source: str, code: str) -> Iterator[dict[str, str]]:
    """Every row of some files: one a line, or those of an array.

    Args:
        files: Path, size and time of change of each: `datasets` finds by these what it kept of them.
        source: Named in errors.
        code: Digest of what reads them, for the same reason.

    Raises:
        SettingsError: If something is not UTF-8, no JSON, or no object.
    """
    for path, *_ in files:
        within = "" if source.endswith(Path(path).name) else f" of {Path(path).name}"
        try:
            for row in _rows(Path(path), within):
                yield {COLUMN: row}
        except ValueError as error:
            raise SettingsError(
                "data must be a .json, .jsonl or .parquet file, a folder of them, or a hub id; got "
                f"{source!r}: {error}"
            ) from error


def _rows(path: Path, within: str) -> Iterator[str]:
    with path.open("rb") as file:
        if file.peek(64).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"[":
            for number, row in enumerate(_parsed(file.read(), f"the array{within}"), start=1):
                yield json.dumps(_object(row, f"item {number}{within}"))
            return
        for number, line in enumerate(file, start=1):
            if line.strip():
                _object(_parsed(line, f"line {number}{within}"), f"line {number}{within}")
                yield line.decode("utf-8-sig")


def _parsed(contents: bytes, where: str) -> Any:
    try:
        return json.loads(contents.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise ValueError(f"{where} is not UTF-8. Save the file as UTF-8.") from None
    except ValueError as error:
        raise ValueError(f"{where} is not JSON: {error}. Correct it, or leave it out.") from error


def _object(row: Any, where: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise ValueError(f"{where} is no object with columns. Correct it, or leave it out.")
    return row
