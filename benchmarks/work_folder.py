"""A folder of kept work, which says what its work is of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from dspy_diffusion_infill.errors import SettingsError

RECORD = "run.json"


def claim(folder: Path, about: Mapping[str, str]) -> None:
    """Let a new folder say what its work is of, and refuse one of other work.

    Args:
        folder: Made if it is not there.
        about: What the work is of, by aspect.

    Raises:
        SettingsError: If the folder holds other work, or does not say of what its work is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / RECORD
    if not record.is_file():
        if any(folder.iterdir()):
            raise SettingsError(
                f"--work must be a new folder, or one whose {RECORD} says what its work is of; got {folder}. "
                "Use a new one."
            )
        record.write_text(json.dumps(dict(about)), encoding="utf-8")
    found = json.loads(record.read_text(encoding="utf-8"))
    other = [aspect for aspect in about if found.get(aspect) != about[aspect]]
    if other:
        raise SettingsError(
            f"--work must be the folder of this very run, or a new one; {folder} is of a run with another "
            f"{', '.join(other)}. Use another folder."
        )
