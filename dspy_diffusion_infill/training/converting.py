"""Conversions whose results are kept on disk for as long as this package converts in the same way."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import dspy_diffusion_infill


class Converted:
    """A function of rows that `datasets` takes for another one when this package has changed.

    `datasets` keeps what `map` made under a name drawn from the function's own name and what it holds; that
    name would survive a changed chat format or mask.

    Args:
        convert: A row, and what else `map` gives, to a row.
    """

    def __init__(self, convert: Callable[..., dict[str, Any]]) -> None:
        self.convert = convert
        self.code = code()

    def __call__(self, *given: Any) -> dict[str, Any]:
        """Convert a row."""
        return self.convert(*given)


@cache
def code() -> str:
    """A digest of the package's own modules, and of the texts they lay out."""
    digest, package = hashlib.sha256(), Path(dspy_diffusion_infill.__file__).parent
    for path in sorted([*package.rglob("*.py"), *package.glob("assets/*.toml")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()
