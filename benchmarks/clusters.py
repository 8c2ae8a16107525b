"""Intervals over schemes: cells of one scheme share its labels, and are drawn together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
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
    numbers = (number([cell for name in sample for cell in schemes[name]]) for sample in samples)
    found = sorted(one for one in numbers if one is not None)
    return (found[int(0.025 * len(found))], found[int(0.975 * len(found))]) if found else None
