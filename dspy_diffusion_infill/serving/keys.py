"""What a server's key may be: something that a header carries as it is.

Pure: no dspy, no torch.
"""

from __future__ import annotations

from dspy_diffusion_infill.errors import SettingsError


def check_key(name: str, key: str) -> None:
    """Refuse a key that could never match, without showing it.

    Raises:
        SettingsError: If it has blanks, such as the end of the line it was read from.
    """
    if not key.isprintable() or " " in key or not key:
        raise SettingsError(f"{name} must have printable characters and no blanks; it has others, or none.")
