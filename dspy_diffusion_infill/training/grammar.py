"""Review sentences from a compositional grammar, each with its grade.

A sentence is drawn by grade: 0 (terrible), 1 (bad), 2 (mixed), 3 (good), 4 (excellent). Its words are graded,
its frame is drawn apart from them, and three rules change a grade: negation turns good into bad and bad into
good, strong intensifiers push bad to terrible and good to excellent, and praise joined to blame is mixed.
Pure: no dspy, no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TypeVar

from dspy_diffusion_infill.training.lexicon import (
    ADJECTIVES,
    CLOSERS,
    CONTRASTS,
    FEELINGS,
    IDIOMS,
    MADE,
    MANNERS,
    NOUN_PHRASES,
    OPENERS,
    PLURALS,
    SOFT,
    STRONG,
    THINGS,
    TOPICS,
)

NUM_GRADES = 5

_T = TypeVar("_T")

PRAISE = (3, 4)
BLAME = (0, 1)


class Reviews:
    """An endless, seeded source of graded sentences.

    Example:
        >>> text, grade = Reviews(Random(0)).draw()
        >>> 0 <= grade < NUM_GRADES and text[0].isupper()
        True
    """

    def __init__(self, random: Random) -> None:
        self.random = random

    def draw(self, grade: int | None = None) -> tuple[str, int]:
        """One sentence and its grade; of the given grade, if one is given."""
        grade = self.random.randrange(NUM_GRADES) if grade is None else grade
        roll = self.random.random()
        if roll < 0.12:
            return self._pick(IDIOMS[grade]), grade
        clause = (
            self._mixed()
            if grade == 2 and roll < 0.5
            else self._same(grade)
            if roll > 0.7
            else self._clause(grade)
        )
        return self._finish(clause), grade

    def _pick(self, options: Sequence[_T]) -> _T:
        return self.random.choice(options)

    def _finish(self, clause: str) -> str:
        if self.random.random() < 0.2:
            clause = f"{self._pick(OPENERS)} {_inner(clause)}"
        if self.random.random() < 0.15:
            clause = f"{clause} {self._pick(CLOSERS)}"
        return clause[0].upper() + clause[1:] + self._pick("....!")

    def _same(self, grade: int) -> str:
        join = self._pick((" and ", ", and ", ", ", "; "))
        second = self._clause(grade)
        return self._clause(grade) + join + _inner(second)

    def _mixed(self) -> str:
        sides = [self._clause(self._pick(PRAISE)), self._clause(self._pick(BLAME))]
        self.random.shuffle(sides)
        return f"{sides[0]}{self._pick(CONTRASTS)} {_inner(sides[1])}"

    def _clause(self, grade: int) -> str:
        frames = (
            self._is,
            self._is,
            self._is,
            self._phrase,
            self._feeling,
            self._noun,
            self._made,
            self._has,
            self._fragment,
            self._bare,
        )
        return self._pick(frames)(grade)

    def _subject(self) -> tuple[str, str]:
        """A subject and its verb."""
        roll = self.random.random()
        if roll < 0.15:
            return self._pick(("It", "This", "This one", "The whole thing", "Everything", "What I saw")), "is"
        if roll < 0.4:
            return f"{self._pick(('The', 'The', 'Its', 'All the', 'These'))} {self._pick(PLURALS)}", "are"
        return f"{self._pick(('The', 'The', 'This', 'Its'))} {self._pick(THINGS)}", "is"

    def _adjective(self, grade: int) -> str:
        """An adjective phrase of this grade: bare, intensified, negated, or doubled."""
        word, roll = self._pick(ADJECTIVES[grade]), self.random.random()
        if roll < 0.2:
            return f"{self._pick(SOFT)} {word}"
        if roll < 0.3:
            return f"{word} and {self._pick(ADJECTIVES[grade])}"
        if roll < 0.45 and grade in (0, 4):
            return (
                f"{self._pick(STRONG)} {self._pick(ADJECTIVES[1 if grade == 0 else 3] + ADJECTIVES[grade])}"
            )
        if roll < 0.45 and grade == 1:
            return self._pick(
                ("not", "not very", "not really", "hardly", "far from", "never", "not at all")
            ) + (f" {self._pick(ADJECTIVES[self._pick(PRAISE)])}")
        if roll < 0.45 and grade == 3:
            return self._pick(("not", "not at all", "never", "anything but", "by no means")) + (
                f" {self._pick(ADJECTIVES[1])}"
            )
        return word

    def _is(self, grade: int) -> str:
        subject, verb = self._subject()
        if self.random.random() < 0.2:
            verb = self._pick(
                ("was", "felt", "seemed", "looked") if verb == "is" else ("were", "felt", "seemed", "looked")
            )
        return f"{subject} {verb} {self._adjective(grade)}"

    def _phrase(self, grade: int) -> str:
        subject = self._pick(("It", "This", f"The {self._pick(THINGS)}", f"This {self._pick(THINGS)}"))
        verb = self._pick(("is", "is", "was", "turned out to be"))
        return f"{subject} {verb} {self._pick(NOUN_PHRASES[grade])}"

    def _feeling(self, grade: int) -> str:
        thing = self._pick(
            ("it", f"this {self._pick(THINGS)}", f"the {self._pick(THINGS)}", f"the {self._pick(PLURALS)}")
        )
        return f"I {self._pick(FEELINGS[grade])} {thing}"

    def _noun(self, grade: int) -> str:
        adjective = self._pick(ADJECTIVES[grade])
        article = "an" if adjective[0] in "aeiou" else "a"
        lead = self._pick(("It is", "This is", "What we have is", "It was", "This was", "You get", "I saw"))
        return f"{lead} {article} {adjective} {self._pick(THINGS)}"

    def _made(self, grade: int) -> str:
        subject, verb = self._subject()
        return f"{subject} {verb} {self._pick(MANNERS[grade])} {self._pick(MADE)}"

    def _has(self, grade: int) -> str:
        second = f"{self._pick(ADJECTIVES[grade])} {self._pick(PLURALS)}"
        first = f"{self._pick(ADJECTIVES[grade])} {self._pick(PLURALS)}"
        opening = self._pick(("It has", "This has", "The film has", "There are", "Expect", "I saw"))
        return f"{opening} {first} and {second}"

    def _bare(self, grade: int) -> str:
        noun = self._pick(PLURALS if self.random.random() < 0.5 else THINGS)
        return f"{self._adjective(grade)} {noun}"

    def _fragment(self, grade: int) -> str:
        adjective = self._pick(ADJECTIVES[grade])
        article = "An" if adjective[0] in "aeiou" else "A"
        tail = self._pick(
            (
                "",
                f" with {self._pick(ADJECTIVES[grade])} {self._pick(PLURALS)}",
                f" about {self._pick(TOPICS)}",
            )
        )
        return f"{article} {adjective} {self._pick(THINGS)}{tail}"


def _inner(clause: str) -> str:
    """A clause as it reads inside a sentence."""
    return clause if clause.startswith("I ") else clause[0].lower() + clause[1:]
