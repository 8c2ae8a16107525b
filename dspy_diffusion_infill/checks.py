"""What a number among the settings must be before its range is looked at."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral, Real

from dspy_diffusion_infill.errors import SettingsError


def check_whole(settings: Mapping[str, object]) -> None:
    """Refuse what is no whole number, by the settings' names.

    Raises:
        SettingsError: At the first of them.

    Example:
        >>> check_whole({"window": 8, "stride": "4"})
        Traceback (most recent call last):
        dspy_diffusion_infill.errors.SettingsError: stride must be a whole number; got '4'.
    """
    for name, value in settings.items():
        if not isinstance(value, Integral) or isinstance(value, bool):
            raise SettingsError(f"{name} must be a whole number; got {value!r}.")


def check_finite(settings: Mapping[str, object]) -> None:
    """Refuse what is no finite number, by the settings' names.

    Raises:
        SettingsError: At the first of them.
    """
    for name, value in settings.items():
        if not isinstance(value, Real) or isinstance(value, bool) or not math.isfinite(value):
            raise SettingsError(f"{name} must be a finite number; got {value!r}.")
