"""Intervals over schemes, and over seeds: cells of one share its labels or models, and are drawn together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import product
from random import Random
from typing import TypeVar

Cell = TypeVar("Cell")
Interval = tuple[float, float]


def interval(
    cells: Iterable[tuple[str, Cell]], number: Callable[[Sequence[Cell]], float | None], draws: int = 1000
) -> Interval | None:
    """Where 95 % of bootstrap samples of the schemes put a number.

    Args:
        cells: With the name of their scheme; all cells of a drawn one come along.
        number: Of the cells of a sample; None where it is not defined, and the sample is left out.
        draws: Samples.

    Returns:
        None for a single scheme, which says nothing of others, or if no sample defines the number.

    Example:
        >>> interval([("a", 1.0), ("a", 3.0), ("b", 2.0)], lambda cells: sum(cells) / len(cells))
        (2.0, 2.0)
    """
    schemes: dict[str, list[Cell]] = {}
    for scheme, cell in cells:
        schemes.setdefault(scheme, []).append(cell)
    if len(schemes) < 2:
        return None
    random, names = Random(0), list(schemes)
    samples = (random.choices(names, k=len(names)) for _ in range(draws))
    return _middle(number([cell for name in sample for cell in schemes[name]]) for sample in samples)


def crossed_interval(
    cells: Iterable[tuple[str, int, Cell]],
    number: Callable[[Sequence[Cell]], float | None],
    draws: int = 1000,
) -> Interval | None:
    """The same where seeds are drawn as well as schemes, each seed with all of its cells.

    It is rather too wide than too narrow. Source: Owen, "The pigeonhole bootstrap" (2007).

    Args:
        cells: With scheme and seed; every scheme has every seed.
        number: As in `interval`.
        draws: Samples.

    Returns:
        None for a single scheme or seed, which says nothing of others, or if no sample defines the number.

    Example:
        >>> cells = [("a", 0, 1.0), ("a", 1, 3.0), ("b", 0, 1.0), ("b", 1, 3.0)]
        >>> crossed_interval(cells, lambda cells: sum(cells) / len(cells))
        (1.0, 3.0)
    """
    placed = {(scheme, seed): cell for scheme, seed, cell in cells}
    schemes, seeds = (list(dict.fromkeys(places)) for places in zip(*placed, strict=True))
    if min(len(schemes), len(seeds)) < 2:
        return None
    random = Random(0)
    samples = (
        product(random.choices(schemes, k=len(schemes)), random.choices(seeds, k=len(seeds)))
        for _ in range(draws)
    )
    return _middle(number([placed[place] for place in sample]) for sample in samples)


def _middle(numbers: Iterable[float | None]) -> Interval | None:
    """Where 95 % of the numbers are that are defined."""
    found = sorted(one for one in numbers if one is not None)
    return (found[int(0.025 * len(found))], found[int(0.975 * len(found))]) if found else None
