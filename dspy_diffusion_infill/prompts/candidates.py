"""From fillings to candidate instructions.

Pure: no dspy, no torch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from dspy_diffusion_infill.prompts.canvas import Filling
from dspy_diffusion_infill.prompts.windows import Window

Candidate = Mapping[str, str]
"""Instructions of every predictor, by its name."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A filling that was never scored, and why."""

    text: str
    reason: str


def propose(
    incumbent: Candidate,
    predictor: str,
    window: Window,
    fillings: Iterable[Filling],
    guard: Callable[[str], str | None] = lambda text: None,
) -> tuple[list[Candidate], list[Rejected]]:
    """Put each filling into the window of one predictor's instructions.

    Text outside the window stays as it was, to the byte. Kept in the form that DSPy reads instructions back
    in (`inspect.cleandoc`), so that equal candidates are equal prompts.

    Args:
        incumbent: The candidate the window was cut from. Not modified.
        predictor: Whose instructions the window lies in.
        window: Where the fillings go.
        fillings: Each with a text for each masked part of the window.
        guard: Says what is wrong with new instructions; None if nothing is.

    Returns:
        The candidates, the likeliest filling first, without repeats; and the fillings rejected: unchanged,
        empty, unprintable, such that DSPy would shift the text around them, or not let in by the guard.

    Example:
        >>> fillings = [Filling(("Grade",), -2.0, 1), Filling(("Rate",), -1.0, 1)]
        >>> propose({"self": "Rate it."}, "self", Window(0, 4, (1,)), fillings)
        ([{'self': 'Grade it.'}], [Rejected(text='Rate', reason='unchanged')])
    """
    candidates: list[Candidate] = []
    rejected: list[Rejected] = []
    for filling in sorted(fillings, key=lambda filling: -filling.log_likelihood):
        text = window.fill(filling.texts)
        instructions = as_read(window.replace(incumbent[predictor], text))
        candidate = {**incumbent, predictor: instructions}
        reason = _flaw(incumbent[predictor], window, filling.texts, instructions) or guard(instructions)
        if reason is not None:
            rejected.append(Rejected(text, reason))
        elif candidate not in candidates:
            candidates.append(candidate)
    return candidates, rejected


def as_read(text: str) -> str:
    """The form in which DSPy reads instructions back; cleaning once does not always reach it."""
    cleaned = inspect.cleandoc(text)
    return text if cleaned == text else as_read(cleaned)


def _flaw(before: str, window: Window, texts: Sequence[str], after: str) -> str | None:
    characters = set().union(*texts)
    if "\N{REPLACEMENT CHARACTER}" in characters or not all(map(str.isprintable, characters - {"\n"})):
        return "unprintable"
    if not after.strip():
        return "empty"
    if after == before:
        return "unchanged"
    return None if _holds(after, window.given(before)) else "shifts the text around the window"


def _holds(text: str, pieces: Sequence[str]) -> bool:
    """Whether a text begins with the first piece, ends with the last one, and has the others between them."""
    first, *between, last = pieces
    if not text.startswith(first):
        return False
    place = len(first)
    for piece in between:
        if (found := text.find(piece, place)) < 0:
            return False
        place = found + len(piece)
    return text[place:].endswith(last)


def changed_span(before: str, after: str) -> tuple[int, str, str]:
    """Where two texts differ: the first differing character, and what stands between the common ends in each.

    Example:
        >>> changed_span("Rate the text.", "Rate how warm the text.")
        (5, '', 'how warm ')
    """
    shorter = min(len(before), len(after))
    start = next((n for n in range(shorter) if before[n] != after[n]), shorter)
    rest = shorter - start
    tail = next((n for n in range(rest) if before[-1 - n] != after[-1 - n]), rest)
    return start, before[start : len(before) - tail], after[start : len(after) - tail]


def key(candidate: Candidate) -> tuple[tuple[str, str], ...]:
    """A hashable stand-in: equal candidates have equal keys."""
    return tuple(sorted(candidate.items()))
