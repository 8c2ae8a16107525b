"""Text that must not get into an instruction: leaks, broken markup, babble.

Pure: no dspy, no torch.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from dspy_diffusion_infill.checks import check_whole
from dspy_diffusion_infill.errors import SettingsError

MARKUP = re.compile(r"[{}]|\[\[|\]\]|<\||\|>|```|</?[A-Za-z][\w-]*>")

UNSPACED = (
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f"
    "\U00020000-\U0003ffff"
)
"""Chinese characters and Japanese kana, between whose words there are no spaces."""
WORD = re.compile(rf"(?=\w)[{UNSPACED}]|[^\W{UNSPACED}]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """What a rewritten instruction may not hold; checked before anything is spent on it.

    Example:
        >>> Guard(copied_words=3).flaw("Rate it.", "Rate it like a dull film.", {("a", "dull", "film")})
        "copies 3 words from an example: 'a dull film'"
    """

    copied_words: int = 5
    """Words in a row that may not come from an example, as long as they were not there before."""
    repeats: int = 4
    """Times in a row that a word may not stand."""
    growth: float = 4.0
    """Most characters of the new instructions, as a multiple of the first ones, of `floor_chars` at least."""
    floor_chars: int = 400
    """Characters that are always allowed."""

    def __post_init__(self) -> None:
        check_whole({name: getattr(self, name) for name in ("copied_words", "repeats", "floor_chars")})
        for name, least in (("copied_words", 1), ("repeats", 2), ("growth", 1), ("floor_chars", 0)):
            if getattr(self, name) < least:
                raise SettingsError(f"{name} must be at least {least}; got {getattr(self, name)}.")

    def flaw(
        self, first: str, text: str, grams: frozenset[tuple[str, ...]] | set[tuple[str, ...]]
    ) -> str | None:
        """What is wrong with new instructions; None if nothing is.

        Args:
            first: The instructions that the search started from; what they hold is allowed.
            text: The new ones.
            grams: Word sequences of `copied_words` words, from the examples.
        """
        limit = max(self.floor_chars, int(self.growth * len(first)))
        if len(text) > limit:
            return f"longer than {limit} characters"
        if (
            Counter(MARKUP.findall(text)) - Counter(MARKUP.findall(first))
            or text.count("`") % 2 > first.count("`") % 2
        ):
            return "breaks or adds markup"
        run = longest_run(text)
        if run >= max(self.repeats, longest_run(first) + 1):
            return f"repeats a word {run} times"
        copied = (word_grams([text], self.copied_words) - word_grams([first], self.copied_words)) & grams
        return (
            f"copies {self.copied_words} words from an example: {' '.join(min(copied))!r}" if copied else None
        )


def words(text: str) -> list[str]:
    """The words of a text, in lower case, without punctuation; each Chinese character or kana is a word."""
    return WORD.findall(text.lower())


def longest_run(text: str) -> int:
    """How often a word stands in a row, at most."""
    return max((len(list(group)) for _, group in groupby(words(text))), default=0)


def word_grams(texts: Iterable[str], size: int) -> set[tuple[str, ...]]:
    """Every sequence of `size` words in the texts.

    Example:
        >>> sorted(word_grams(["A dull, dull film."], 3))
        [('a', 'dull', 'dull'), ('dull', 'dull', 'film')]
    """
    split = [words(text) for text in texts]
    return {tuple(found[n : n + size]) for found in split for n in range(len(found) - size + 1)}
