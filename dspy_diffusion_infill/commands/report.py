"""`diffusion-infill report`: a run's pages, made again from its saved results."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer

from dspy_diffusion_infill.commands.terminal import Json, print_json, say
from dspy_diffusion_infill.errors import SettingsError


def report(
    run: Annotated[Path, typer.Argument(help="Folder with run.json, as optimize and write_report leave it.")],
    as_json: Json = False,
) -> None:
    """Write a run's report.html and report.md again.

    They are made of the run.json beside them.
    """
    from dspy_diffusion_infill.report import write_pages

    found = _read(run / "run.json")
    page = write_pages(found, run)
    if as_json:
        scores = {name: _finite(found["detailed_results"][name]) for name in ("score_before", "score_after")}
        print_json({"html": str(page), "markdown": str(page.with_suffix(".md")), **scores})
    else:
        say(f"Report: {page}")


def _finite(score: float | None) -> float | None:
    """None for what JSON has no number for."""
    return score if score is not None and math.isfinite(score) else None


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        unfinished = (file.parent / "journal.jsonl", file.parent / "journal" / "journal.jsonl")
        hint = (
            " Its run has not ended: go on with the same command."
            if any(map(Path.is_file, unfinished))
            else ""
        )
        raise SettingsError(f"run must be a folder that holds run.json; {file.parent} holds none.{hint}")
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{file} must be JSON; it is not: {error}.") from error
