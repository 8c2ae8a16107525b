"""Settings as plain data, for reports and trackers.

Pure: no dspy, no torch.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

from dspy_diffusion_infill.search.metrics import name_of


def plain_settings(settings: Mapping[str, object]) -> dict[str, Any]:
    """Flatten settings by name: a group becomes `group.field`, an object its name.

    Example:
        >>> plain_settings({"seed": 0, "metric": len, "lock": [re.compile("x+")]})
        {'seed': 0, 'metric': 'len', 'lock': ['x+']}
    """
    plain: dict[str, Any] = {}
    for name, value in settings.items():
        if is_dataclass(value) and not isinstance(value, type):
            plain |= {f"{name}.{field}": _plain(inner) for field, inner in asdict(value).items()}
        else:
            plain[name] = _plain(value)
    return plain


def _plain(value: object) -> Any:
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, re.Pattern):
        return value.pattern
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, Iterable):
        return [_plain(inner) for inner in value]
    name = getattr(value, "name", None)
    return name if isinstance(name, str) else name_of(value)
