"""Rating schemes and the instructions that state them.

A scheme is a list of labels from worst to best; its mirror image is another scheme of the same scale. An
instruction states a scheme in one of several wordings. A twentieth of the schemes, and a fifth of the
remaining (wording, scheme) pairs, are held out of every training text; a hash chooses them, before any
training. Were it more schemes, their mirror images would teach that each scale has one direction.
Pure: no dspy, no torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from dspy_diffusion_infill.training.grammar import NUM_GRADES

_POSITIONS = {5: (0, 1, 2, 3, 4), 3: (0, 0, 1, 2, 2), 2: (0, 0, 0, 1, 1)}
"""Label of each grade, by the number of labels."""

IMPRESSIONS = ("terrible", "bad", "okay", "good", "great")
"""What a reply opens with, by grade. Which label a good review gets depends on the review and on the
direction of the scale together; with the impression written down, a small model can learn either first
(docs/log.md)."""

RESULT = "[RESULT] "
"""Delimiter that some instructions ask for before the label, as Prometheus judges write it."""


@dataclass(frozen=True, slots=True)
class Scheme:
    """Labels from worst to best: 5, 3 or 2 of them.

    Example:
        >>> scheme = Scheme(("C", "B", "A"))
        >>> [scheme.label(grade) for grade in range(5)]
        ['C', 'C', 'B', 'A', 'A']
    """

    labels: tuple[str, ...]

    @property
    def worst(self) -> str:
        return self.labels[0]

    @property
    def best(self) -> str:
        return self.labels[-1]

    @property
    def name(self) -> str:
        return f"{self.worst}..{self.best} ({len(self.labels)})"

    @property
    def held_out(self) -> bool:
        """Whether no training text states or uses this scheme. Its mirror image is then in training."""
        bucket = _bucket("scheme", *sorted(self.labels), of=20)
        return bucket == (0 if self.labels[0] < self.labels[-1] else 1)

    @property
    def one_way(self) -> bool:
        """Whether its mirror image is held out, so that training shows this scale in one direction alone."""
        return Scheme(self.labels[::-1]).held_out

    @property
    def grades(self) -> tuple[int, ...]:
        """The grades this scheme can tell: two labels have no word for a mixed review."""
        return (0, 1, 3, 4) if len(self.labels) == 2 else tuple(range(NUM_GRADES))

    def label(self, grade: int) -> str:
        """The label of a review of this grade."""
        return self.labels[_POSITIONS[len(self.labels)][grade]]


@dataclass(frozen=True, slots=True)
class Instruction:
    """A wording of a scheme.

    Example:
        >>> Instruction(ORACLE, Scheme(("1", "2", "3", "4", "5"))).text
        'Rate the text (1-5).'
    """

    wording: str
    scheme: Scheme

    @property
    def text(self) -> str:
        return self.wording.format(worst=self.scheme.worst, best=self.scheme.best)

    @property
    def held_out(self) -> bool:
        return self.scheme.held_out or _bucket(self.wording, *self.scheme.labels) == 0

    def answer(self, grade: int) -> str:
        """The rating of a review of this grade."""
        return (RESULT if RESULT.strip() in self.wording else "") + self.scheme.label(grade)

    def reply(self, grade: int) -> str:
        """An impression, and on the next line the rating."""
        return f"{IMPRESSIONS[grade]}\n{self.answer(grade)}"


def _bucket(*parts: str, of: int = 5) -> int:
    return int(hashlib.sha256("|".join(parts).encode()).hexdigest(), 16) % of


def _numbers(start: float, step: float, count: int, digits: int = 0) -> tuple[str, ...]:
    return tuple(f"{start + step * i:.{digits}f}" for i in range(count))


def _scales() -> list[tuple[str, ...]]:
    """Scales, worst first, no two with the same ends: the ends alone tell the labels."""
    whole = [_numbers(a, step, n) for n in (5, 3) for a in (0, 1, 2, 3, 4, 5, 10) for step in (1, 2, 5, 10)]
    large = [_numbers(0, step, n) for n, step in ((5, 25), (5, 20), (3, 100), (3, 30))]
    decimal = [_numbers(a, step, n, 1) for n in (5, 3) for a in (0, 1, 2, 3, 4, 5) for step in (1, 0.5)]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    letters = [tuple(alphabet[a : a + n]) for n, every in ((5, 3), (3, 5)) for a in range(0, 22, every)]
    small = [tuple(label.lower() for label in scale) for scale in letters]
    pairs = [tuple(pair.split("/")) for pair in PAIRS.split()]
    words = [tuple(words.split("/")) for words in WORDS.split()]
    scales = [*words, *pairs, *whole, *large, *decimal, *letters, *small]
    return list({frozenset((scale[0], scale[-1])): scale for scale in reversed(scales)}.values())[::-1]


PAIRS = (
    "no/yes down/up false/true 0/1 left/right red/green fail/pass cold/hot low/high out/in stop/go "
    "lose/win black/white small/big minus/plus off/on south/north east/west X/O bronze/gold thumb/star "
    "fall/rise drop/keep reject/accept sell/buy sad/happy night/day moon/sun short/long near/far A/B a/b "
    "1/2 0/5 1/10 2/4 old/new"
)
WORDS = (
    "terrible/bad/okay/good/great awful/poor/fair/fine/superb hate/dislike/neutral/like/love "
    "low/medium/high sad/neutral/happy bronze/silver/gold red/yellow/green small/medium/large "
    "worst/worse/average/better/best cold/warm/hot first/second/third one/two/three one/two/three/four/five "
    "no/maybe/yes down/level/up never/rarely/sometimes/often/always tiny/small/medium/large/huge"
)

SCHEMES = tuple(Scheme(labels) for scale in _scales() for labels in (scale, scale[::-1]))
"""Every scale in both directions."""

NUM_PAIRED = len(SCHEMES) - 2 * sum(scheme.held_out for scheme in SCHEMES)
"""How many schemes are taught in both directions."""

WORDINGS = (
    "Bad={worst}, good={best}.",
    "Rate the text ({worst}-{best}).",
    "Rate ({worst}-{best}).",
    "Rate the review ({worst}-{best}).",
    "Score the text ({worst}-{best}).",
    "Rate the text [{worst}-{best}].",
    "Scale: ({worst}..{best}).",
    "Rate the text, {worst}..{best}.",
    "Worst={worst}, best={best}.",
    "Best={best}, worst={worst}.",
    "Good={best}, bad={worst}.",
    "Say ({best}) if good, ({worst}) if bad.",
    "Give ({worst}) for bad, ({best}) for good.",
    "Rate the text: worst={worst}, best={best}.",
    "Rate the review on a scale ({worst}-{best}), where ({best}) is best.",
    "Read the review and answer with a rating, bad={worst}, good={best}.",
    "How good is it? Answer ({worst}-{best}).",
    "Rate ({worst}-{best}) as " + RESULT + "rating.",
    "Rate the text ({worst}-{best}). Write " + RESULT + "first.",
)
"""Ends of a scale stand behind punctuation (one wording has its worst end behind a space): they are then the
very tokens of the answers, and a small model copies tokens long before it learns that two mean the same."""

VAGUE = "Rate the text."
"""States no scheme; never paired with a label in training."""

ORACLE = WORDINGS[1]


def training_instructions(
    num_schemes: int | None = None, num_wordings: int | None = None
) -> list[Instruction]:
    """Every instruction that training may show; of the first few schemes and wordings, if numbers are given.

    Schemes of five labels come first: they tell all grades apart. Mirror images stand together. Those whose
    mirror image is held out come last: no scale before them has one direction, to be learned by heart.
    """
    schemes = sorted((scheme for scheme in SCHEMES if not scheme.held_out), key=_place)
    wordings = WORDINGS[:num_wordings]
    found = [Instruction(wording, scheme) for scheme in schemes[:num_schemes] for wording in wordings]
    return [instruction for instruction in found if not instruction.held_out]


def held_out_schemes() -> list[Scheme]:
    """The schemes that no training text shows."""
    return _ordered(scheme for scheme in SCHEMES if scheme.held_out)


def nearest_training_instruction(text: str) -> Instruction:
    """The training instruction whose text is most like `text`: what look-up would answer."""
    from difflib import SequenceMatcher

    return max(
        training_instructions(), key=lambda i: SequenceMatcher(None, i.text, text, autojunk=False).ratio()
    )


def _place(scheme: Scheme) -> tuple[bool, int, int, tuple[str, ...]]:
    """Where a scheme comes in training."""
    order = _bucket("order", *sorted(scheme.labels), of=2**64)
    return scheme.one_way, -len(scheme.labels), order, scheme.labels


def _ordered(schemes: Iterable[Scheme]) -> list[Scheme]:
    """In an order that a hash fixes."""
    return sorted(schemes, key=lambda scheme: _bucket("order", *scheme.labels, of=2**64))
