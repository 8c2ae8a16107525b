"""Texts, one a file.

Pure: no dspy, no torch.
"""

from __future__ import annotations

from pathlib import Path

from dspy_diffusion_infill.errors import SettingsError


def read_text(path: Path) -> str:
    """Read a text file.

    Raises:
        SettingsError: If it is not there, or no UTF-8 text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "no UTF-8 text"
        raise SettingsError(f"A text must be in a file that can be read; got {path}: {reason}.") from error
