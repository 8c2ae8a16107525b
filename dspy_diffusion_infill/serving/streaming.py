"""An answer as it is written: what stands before the first mask token will not change any more."""

from __future__ import annotations

from collections.abc import Sequence

from dspy_diffusion_infill.engine.generation import read_answer
from dspy_diffusion_infill.engine.vocabulary import Vocabulary

UNFINISHED = "\N{REPLACEMENT CHARACTER}"
"""How the first bytes of a character read before the others are there."""


class Growing:
    """The text of one answer, given out piece by piece.

    Diffusion commits tokens in any order, but blocks are written from left to right, and within a block
    some tokens are first: each piece is text that the whole answer begins with. What may turn out to be the
    start of a stop text is held back.

    Args:
        vocabulary: Of the model.
        stops: Texts that end the answer.
    """

    def __init__(self, vocabulary: Vocabulary, stops: Sequence[str]) -> None:
        self._vocabulary, self._stops = vocabulary, stops
        self._given = ""

    @property
    def started(self) -> bool:
        return bool(self._given)

    def grow(self, ids: Sequence[int]) -> str:
        """The new text of an answer's tokens before its first mask; maybe none."""
        answer = read_answer(self._vocabulary, ids, self._stops)
        sure = answer.text if answer.stopped else answer.text.rstrip(UNFINISHED)
        if not answer.stopped:
            sure = sure[: len(sure) - self._held_back(sure)]
        return self._give(sure)

    def finish(self, text: str) -> str:
        """What is left of the whole answer."""
        return self._give(text)

    def _held_back(self, text: str) -> int:
        """Characters at the end that a stop text may begin with."""
        sizes = (size for stop in self._stops for size in range(len(stop)) if text.endswith(stop[:size]))
        return max(sizes, default=0)

    def _give(self, text: str) -> str:
        if not text.startswith(self._given):
            return ""
        new, self._given = text[len(self._given) :], text
        return new
