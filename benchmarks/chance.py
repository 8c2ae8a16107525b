"""What answers are worth beyond chance: nothing, if they name the labels and know no more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


def kappa(answers: Sequence[str], labels: Sequence[str]) -> float:
    """Cohen's kappa: agreement, above what the same answers in any order would have, of what is left to 1.

    Source: Cohen, "A coefficient of agreement for nominal scales" (1960).

    Args:
        answers: Whatever was answered; what is no label agrees with nothing.
        labels: Of the same examples.

    Returns:
        1 for all right, 0 for chance, negative below it; 0 where chance alone is right everywhere.

    Example:
        >>> kappa(["good", "good"], ["good", "bad"])
        0.0
        >>> kappa(["good", "bad", "bad"], ["good", "bad", "good"])
        0.4
    """
    count = len(labels)
    agreed = sum(answer == label for answer, label in zip(answers, labels, strict=True)) * count
    given, wanted = Counter(answers), Counter(labels)
    by_chance = sum(given[label] * wanted[label] for label in wanted)
    return (agreed - by_chance) / (count**2 - by_chance) if by_chance < count**2 else 0.0
