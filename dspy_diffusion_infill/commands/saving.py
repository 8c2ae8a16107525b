"""What `diffusion-infill optimize` leaves in its output folder; whether it can is known before it spends."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import dspy

from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.report import check_files, write_report

PROGRAM, RESULTS, JOURNAL = "program.json", "run.json", "journal"
"""In the output folder, beside the pages."""


def check_free(folder: Path) -> None:
    """Refuse a folder that has results, but not the journal from which their run goes on.

    Raises:
        SettingsError: If they would be replaced.
    """
    check_files(folder, PROGRAM)
    found = [name for name in (PROGRAM, RESULTS) if (folder / name).exists()]
    if found and not (folder / JOURNAL / "journal.jsonl").is_file():
        raise SettingsError(
            f"output must be a new folder, or this run's own; {folder} has {found[0]} of another run, and no "
            "journal. Name another folder, or move that away."
        )


def check_savable(program: dspy.Module, folder: Path) -> None:
    """Save a program for a moment, so that no budget is spent on one that cannot be saved.

    Raises:
        SettingsError: If it cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder, prefix=".program-") as fresh:
            program.save(Path(fresh, PROGRAM))
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise SettingsError(
            f"program must be one that can be saved as JSON in {folder}; it cannot: {error}"
        ) from error


def save(tuned: dspy.Module, folder: str | os.PathLike[str]) -> dict[str, str]:
    """Write the tuned program and its report; where they are, by what they are.

    The report comes first: it has the instructions, should the program not be saved. Earlier files are
    replaced whole; only their owner may read them.
    """
    folder = Path(folder)
    page = write_report(tuned, folder)
    with TemporaryDirectory(dir=folder, prefix=".program-") as fresh:
        file = Path(fresh, PROGRAM)
        file.touch(mode=0o600)
        tuned.save(file)
        os.replace(file, folder / PROGRAM)
    return {"program": str(folder / PROGRAM), "report": str(page)}
