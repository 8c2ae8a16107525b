"""Sources put together: some examples of each are held out, the rest is mixed by weight and counted."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple, cast

from datasets import IterableDataset, concatenate_datasets, interleave_datasets

from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.training.corpus import NO_RESPONSE
from dspy_diffusion_infill.training.sources import Rows


@dataclass(frozen=True, slots=True)
class Counts:
    """What is in a mixture that is not streamed, held-out examples and those of one epoch."""

    examples: int
    tokens: int
    truncated: int
    """Examples that were longer than allowed, and were cut."""
    dropped: int
    """Examples left out because no response was left to learn."""
    repeated: int
    """Examples that came before in the same epoch, as the weights ask for."""
    withheld: int = 0
    """Examples left out because a held-out one reads the same."""

    def __str__(self) -> str:
        again = f", {self.repeated:,} of them again for the weights" if self.repeated else ""
        same = f", {self.withheld:,} that read as a held-out one" if self.withheld else ""
        return (
            f"{self.examples:,} examples{again}, {self.tokens:,} tokens; {self.truncated:,} truncated, "
            f"{self.dropped:,} without a response{same} left out"
        )


class Mixture(NamedTuple):
    """Encoded rows in two parts that share none, nor any that read the same."""

    held_out: Rows
    trained: Rows
    """One epoch of them."""
    withheld: int
    """Rows in neither part, since they read as held-out ones; of streams, which are not counted, 0."""


def mix(
    sources: Sequence[Rows], held_out: int, *, weights: Sequence[float] | None = None, seed: int = 0
) -> Mixture:
    """Hold some rows of each source out, then mix the others.

    With weights, the rows of a source come again until every row of every source came once: an epoch may then
    be far longer than the data.

    Args:
        sources: Encoded, all with a response.
        held_out: Rows to hold out, shared out over the sources by weight.
        weights: Share of each source; None: all rows, once each. Streams are then read in turns.
        seed: Of both.

    Raises:
        SettingsError: If holding out would leave nothing of a source.
    """
    if weights is None:
        sources, weights = [_together(sources)], [1.0]
    numbers = shared_out(held_out, weights)
    parts = [_divided(rows, number, seed) for rows, number in zip(sources, numbers, strict=True)]
    aside, rest = (cast(Any, list(part)) for part in zip(*parts, strict=True))
    trained: Any = _without(rest, aside)
    withheld = sum(len(rows) - len(kept) for rows, kept in zip(rest, trained, strict=True)
                   if not isinstance(rows, IterableDataset))  # fmt: skip
    if len(parts) == 1:
        return Mixture(aside[0], trained[0], withheld)
    shares = [weight / sum(weights) for weight in weights]
    mixed = interleave_datasets(trained, shares, seed=seed, stopping_strategy="all_exhausted")
    # An empty stream has no columns to be put beside others.
    some = [rows for rows, number in zip(aside, numbers, strict=True) if number]
    return Mixture(concatenate_datasets(some) if some else aside[0], mixed, withheld)


def check_weights(weights: Sequence[float] | None, sources: Sequence[str]) -> None:
    """Refuse weights that are no shares of these sources."""
    if weights is None:
        return
    if len(weights) != len(sources) or not all(0 < weight < math.inf for weight in weights):
        raise SettingsError(
            f"weights must be {len(sources)} positive numbers, one for each source; got {list(weights)}."
        )


def shared_out(number: int, weights: Sequence[float]) -> list[int]:
    """Whole shares by weight, which add up to a number.

    Example:
        >>> shared_out(64, [0.9, 0.1])
        [58, 6]
    """
    total, bounds = sum(weights), [0]
    for count in range(1, len(weights) + 1):
        bounds.append(round(number * sum(weights[:count]) / total))
    return [end - start for start, end in pairwise(bounds)]


def count(read: Sequence[Rows], kept: Sequence[Rows], mixture: Mixture) -> Counts:
    """Count what was read, what of it has a response, and what it was mixed to."""
    parts = cast(list[Any], [mixture.held_out, mixture.trained])
    num_read, distinct, examples = (sum(map(len, cast(Any, rows))) for rows in (read, kept, parts))
    tokens, truncated = (sum(sum(rows[name]) for rows in parts) for name in ("num_tokens", "truncated"))
    withheld = mixture.withheld
    repeated = examples + withheld - distinct
    return Counts(examples, tokens, truncated, num_read - distinct, repeated, withheld)


def fingerprint(sources: Sequence[Rows]) -> str:
    """Sixteen hexadecimal digits that change with the encoded rows, or their order."""
    digest = hashlib.sha256()
    tables = (cast(Any, table) for rows in sources for table in rows.with_format("arrow").iter(1000))
    for column in (table[name].combine_chunks() for table in tables for name in ("ids", "parts")):
        for numbers in (column.value_lengths(), column.flatten()):
            digest.update(numbers.to_numpy(zero_copy_only=False).tobytes())
    return digest.hexdigest()[:16]


def _together(sources: Sequence[Rows]) -> Rows:
    filled = [rows for rows in sources if next(iter(rows), None) is not None]  # datasets adds no empty stream
    if not filled:
        raise SettingsError(NO_RESPONSE)
    if isinstance(filled[0], IterableDataset):  # in turns: a run may end before the first source does
        return interleave_datasets(cast(Any, filled), stopping_strategy="all_exhausted_without_replacement")
    return concatenate_datasets(cast(Any, filled))


def _divided(rows: Rows, number: int, seed: int) -> tuple[Rows, Rows]:
    if isinstance(rows, IterableDataset):
        _check_number(number, sum(1 for _ in rows.take(number + 1)))
        return rows.take(number), rows.skip(number)
    _check_number(number, len(rows))
    shuffled = rows.shuffle(seed=seed)
    return shuffled.select(range(number)), shuffled.select(range(number, len(rows)))


def _without(sources: Sequence[Rows], held_out: Sequence[Rows]) -> list[Rows]:
    """Sources without the rows that read as a held-out one, of whichever source."""
    seen = frozenset(tuple(row["ids"]) for rows in held_out for row in cast(Any, rows))
    if not seen:
        return list(sources)
    kept = [rows.filter(partial(_is_other, seen=seen), input_columns="ids") for rows in sources]
    if any(next(iter(rows), None) is None for rows in kept):
        raise SettingsError(
            f"held_out must leave examples to train on; all others of a source read as one of {len(seen)} "
            "held-out ones. Lower held_out, or give more data."
        )
    return kept


def _is_other(ids: Sequence[int], seen: frozenset[tuple[int, ...]]) -> bool:
    return tuple(ids) not in seen


def _check_number(held_out: int, found: int) -> None:
    if not found:
        raise SettingsError(NO_RESPONSE)
    if found <= held_out:
        raise SettingsError(
            f"held_out must be below {found}, the number of examples; got {held_out}. Give a lower one; of "
            "several sources with weights this is the share of one."
        )
