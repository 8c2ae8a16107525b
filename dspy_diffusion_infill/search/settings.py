"""Settings: checked, and as plain data for reports and trackers.

Pure: no dspy, no torch.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, get_args

from dspy_diffusion_infill.checks import check_whole
from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.prompts.canvas import Denoising
from dspy_diffusion_infill.prompts.guards import Guard
from dspy_diffusion_infill.prompts.templates import Template
from dspy_diffusion_infill.prompts.windows import SlidingWindow
from dspy_diffusion_infill.search.budget import Budget, check_budget
from dspy_diffusion_infill.search.metrics import name_of
from dspy_diffusion_infill.search.selection import Selection
from dspy_diffusion_infill.traces import ConditionOn

GROUPS = (Budget, Denoising, Guard, Selection, SlidingWindow, Template)
"""What is flattened. Of a user's own objects, which may hold keys and locks, there is the name alone."""


def plain_settings(settings: Mapping[str, object]) -> dict[str, Any]:
    """Flatten settings by name: a group becomes `group.field`, an object its name.

    Example:
        >>> plain_settings({"seed": 0, "metric": len, "lock": [re.compile("x+")]})
        {'seed': 0, 'metric': 'len', 'lock': ['x+']}
    """
    plain: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, GROUPS):
            plain |= {f"{name}.{field.name}": _plain(getattr(value, field.name)) for field in fields(value)}
        else:
            plain[name] = _plain(value)
    return plain


def check_settings(settings: Mapping[str, object]) -> None:
    """Refuse what is not of its kind, by the names of `DiffusionInfill`.

    Raises:
        SettingsError: If a setting breaks its rule.
    """
    if not isinstance(settings["masking"], SlidingWindow | Template):
        raise SettingsError(f"masking must be a SlidingWindow or a Template; got {settings['masking']!r}.")
    for name, kind in (("denoising", Denoising), ("selection", Selection)):
        if not isinstance(settings[name], kind):
            raise SettingsError(f"{name} must be a {kind.__name__}; got {settings[name]!r}.")
    threads, guard = settings["num_threads"], settings["guard"]
    if threads is not None and not (isinstance(threads, int) and threads >= 1):
        raise SettingsError(f"num_threads must be at least 1, or None; got {threads!r}.")
    check_whole({"seed": settings["seed"]})
    if guard not in ("auto", None) and not isinstance(guard, Guard):
        raise SettingsError(f"guard must be 'auto', a Guard, or None; got {guard!r}.")
    if not isinstance(review := settings["review"], bool) and not callable(review):
        raise SettingsError(f"review must be True, False, or a function of an edit; got {review!r}.")
    if (known := settings["condition_on"]) not in get_args(ConditionOn):
        raise SettingsError(f"condition_on must be 'examples', 'traces' or 'both'; got {known!r}.")
    if (redact := settings["redact"]) is not None and not callable(redact):
        raise SettingsError(f"redact must be a function of a text, or None; got {redact!r}.")
    check_budget(settings["budget"])


def _plain(value: object) -> Any:
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, str):
        return re.sub("^(https?://)[^/?#]*@", r"\1", value)  # a password is for no report
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
