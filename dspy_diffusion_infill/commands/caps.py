"""From what a user types to a budget.

Pure: no dspy, no torch.
"""

from __future__ import annotations

from typing import Any, cast, get_args

from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.search.budget import CAPS, Budget, Preset

_COUNTS = ("metric_calls", "tokens")


def read_budget(text: str) -> Preset | Budget:
    """Read a budget.

    Args:
        text: A preset; a number of metric calls; or caps with commas between.

    Raises:
        SettingsError: If it is none of these.

    Example:
        >>> read_budget("light"), read_budget("200").metric_calls, read_budget("seconds=600,usd=2.5").usd
        ('light', 200, 2.5)
    """
    if text in get_args(Preset):
        return cast(Preset, text)
    caps: dict[str, Any] = {}
    for part in text.split(","):
        name, equals, number = part.rpartition("=")
        name = name.strip() if equals else "metric_calls"
        if name in caps:
            raise SettingsError(f"budget must name a cap once; got {name} again in {text!r}.")
        try:
            caps[name] = int(number) if name in _COUNTS else float(number)
        except ValueError:
            name = ""
        if name not in CAPS:
            raise SettingsError(
                f"budget must be {', '.join(get_args(Preset))}, a number of metric calls, or caps such as "
                f"metric_calls=200,usd=2.5 (of {', '.join(CAPS)}); got {text!r}."
            )
    return Budget(**caps)
