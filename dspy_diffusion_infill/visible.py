r"""Texts of models and of data as a reader may see them. Pure: no dspy, no torch."""

from __future__ import annotations

import re

HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Control characters but the line end and the tab; and what turns the direction of the text behind it."""


def visible(text: str) -> str:
    r"""A text that can neither steer a terminal nor show its words in another order.

    Example:
        >>> print(visible("Rate\x1b[2K it"))
        Rate\x1b[2K it
    """
    return HIDDEN.sub(lambda found: repr(found[0])[1:-1], text)
