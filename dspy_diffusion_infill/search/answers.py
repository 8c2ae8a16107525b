"""What an infiller answered, checked: a user's own may break its obligations.

Pure: no dspy, no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dspy_diffusion_infill.errors import InfillError
from dspy_diffusion_infill.prompts.canvas import Canvas, Filling, Infiller


def checked_fillings(
    found: Any, canvases: Sequence[Canvas], num_candidates: int, infiller: Infiller
) -> list[list[Filling]]:
    """Fillings as `Infiller.infill` promises them.

    Raises:
        InfillError: If they are something else.
    """
    _check(_is_list(found, len(canvases)), infiller, f"a list for each of {len(canvases)} canvases", found)
    for canvas, fillings in zip(canvases, found, strict=True):
        count = canvas.num_masked_parts
        _check(_is_list(fillings, num_candidates), infiller, f"{num_candidates} fillings a canvas", fillings)
        for filling in fillings:
            whole = isinstance(filling, Filling) and _is_list(filling.texts, count)
            good = whole and all(isinstance(text, str) for text in filling.texts)
            _check(good, infiller, f"a Filling with a text for each of {count} masked parts", filling)
    return found


def checked_offsets(found: Any, text: str, infiller: Infiller) -> list[tuple[int, int]]:
    """Character ranges of a text as `Infiller.offsets` promises them.

    Raises:
        InfillError: If they are something else.
    """
    good = _is_list(found) and all(
        _is_list(pair, 2) and all(isinstance(place, int) and 0 <= place <= len(text) for place in pair)
        for pair in found
    )
    rule = f"a list of (start, end) within a text of {len(text)} characters"
    _check(good, infiller, rule, found, method="offsets")
    return found


def _is_list(value: Any, count: int | None = None) -> bool:
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    return is_list and count in (None, len(value))


def _check(good: bool, infiller: Infiller, rule: str, got: object, method: str = "infill") -> None:
    if not good:
        name = type(infiller).__name__
        raise InfillError(f"{name}.{method} must return {rule}; got {got!r:.200}. See `Infiller`.")
