"""What would end a benchmark after hours, or spoil its result: refused before anything is measured."""

from __future__ import annotations

import argparse
from collections.abc import Sequence, Sized
from pathlib import Path

from benchmarks.report import unfinished
from dspy_diffusion_infill.errors import SettingsError

COUNTS = ("limit", "shots", "samples", "schemes", "threads", "words", "canvases", "rounds", "windows")
FILES = ("json", "figure")


def parsed(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options, if counts are counts and every result can be written."""
    options = parser.parse_args(arguments)
    for name in COUNTS:
        value = getattr(options, name, None)
        if value is not None and value < 1:
            parser.error(f"--{name} must be at least 1; got {value}.")
    for name in FILES:
        path: Path | None = getattr(options, name, None)
        if path is not None and (why := _unwritable(path)):
            parser.error(f"--{name} must be a file that can be written; got {path}: {why}. Name another one.")
    return options


def check_enough(what: str, rows: Sized, least: int = 1) -> None:
    """Refuse data that a run cannot do with.

    Raises:
        SettingsError: If there are too few rows.
    """
    if len(rows) < least:
        raise SettingsError(
            f"{what} must be at least {least}; got {len(rows)}. Give more data, or ask for less of it."
        )


def _unwritable(path: Path) -> str | None:
    """Why a file cannot be written; a trial beside it leaves nothing there."""
    if path.is_dir():
        return "it is a folder"
    trial = unfinished(path)
    try:
        trial.touch()
        trial.unlink()
    except OSError as error:
        return error.strerror
    return None
