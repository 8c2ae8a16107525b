"""Conversations as token ids: encoded once, cut to length, mixed by weight, and drawn by number."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any, Protocol, cast

import torch
from datasets import Dataset, concatenate_datasets, interleave_datasets

from dspy_diffusion_infill.engine.vocabulary import Vocabulary
from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.prompts.canvas import Message, Role
from dspy_diffusion_infill.training.data import Example, encode
from dspy_diffusion_infill.training.sources import Rows, read

logger = logging.getLogger(__name__)

_GIVEN, _PROMPT, _RESPONSE = range(3)
"""What a stored token is part of; a given one is never masked."""

NO_RESPONSE = "data must hold at least one example with a response; got none. Is max_tokens too small?"

BUFFER = 1000
"""Rows that a stream is shuffled within."""


class Examples(Protocol):
    """Encoded examples by number, without end."""

    def __getitem__(self, number: int, /) -> Example:
        """The example of this number, always the same one."""
        ...


@dataclass(frozen=True, slots=True)
class Counts:
    """What is in a corpus."""

    examples: int
    tokens: int
    truncated: int
    """Examples that were longer than allowed, and were cut."""
    dropped: int
    """Examples left out because no response was left to learn."""

    def __str__(self) -> str:
        return (
            f"{self.examples:,} examples, {self.tokens:,} tokens; {self.truncated:,} truncated, "
            f"{self.dropped:,} without a response left out"
        )


def truncate(example: Example, max_tokens: int) -> Example:
    """Cut an example to a length: first the longest part of its prompt, at its end, then its own end.

    The response is what the prompt is infilled from, so that it is cut last.

    Example:
        >>> example = Example((1, 2, 3, 4, 5), (False, True, True, False, True), (False,) * 4 + (True,))
        >>> truncate(example, 4).ids
        (1, 2, 4, 5)
    """
    excess = len(example.ids) - max_tokens
    if excess <= 0:
        return example
    longest = max(_prompt_parts(example), key=len, default=range(0))
    cut = range(max(longest.start, longest.stop - excess), longest.stop)
    kept = [at for at in range(len(example.ids)) if at not in cut][:max_tokens]
    return Example(
        tuple(example.ids[at] for at in kept),
        tuple(example.maskable[at] for at in kept),
        tuple(example.response[at] for at in kept),
    )


def encoded(
    sources: Sequence[str],
    vocabulary: Vocabulary,
    max_tokens: int,
    *,
    weights: Sequence[float] | None = None,
    seed: int = 0,
    streaming: bool = False,
) -> Rows:
    """Read and encode sources; several are mixed by their weights.

    Args:
        sources: As `sources.read` takes them.
        vocabulary: Of the model to train.
        max_tokens: Longer examples are cut.
        weights: Share of each source, whose rows come again until every row of every source came once; None:
            all rows, once each.
        seed: Of the mixing.
        streaming: Read rows as they are needed.

    Raises:
        SettingsError: If a source cannot be read, or the weights do not fit the sources.
    """
    if weights is not None and (len(weights) != len(sources) or min(weights) <= 0):
        raise SettingsError(
            f"weights must be {len(sources)} positive numbers, one for each source; got {list(weights)}."
        )
    to_row = partial(_encode_row, vocabulary=vocabulary, max_tokens=max_tokens)
    read_rows = [read(source, streaming=streaming) for source in sources]
    rows = [one.map(to_row, remove_columns=["messages"]) for one in read_rows]
    if weights is None:
        return concatenate_datasets(rows)  # pyright: ignore[reportArgumentType, reportReturnType]
    shares = [weight / sum(weights) for weight in weights]
    return interleave_datasets(rows, shares, seed=seed, stopping_strategy="all_exhausted")  # pyright: ignore[reportArgumentType, reportReturnType]


def count(rows: Dataset) -> tuple[Dataset, Counts]:
    """Leave out what has no response, and count the rest."""
    kept = rows.filter(_has_response)
    if not len(kept):
        raise SettingsError(NO_RESPONSE)
    totals = [sum(kept[name]) for name in ("num_tokens", "truncated")]
    return kept, Counts(len(kept), totals[0], totals[1], len(rows) - len(kept))


class Corpus:
    """Encoded examples, every one of them once an epoch, in another order each time.

    Args:
        rows: From `encoded`, all with a response.
        seed: Of the orders.
    """

    def __init__(self, rows: Dataset, seed: int) -> None:
        self.rows = rows
        self.seed = seed
        self._epoch, self._order = -1, torch.empty(0)

    def __len__(self) -> int:
        """Examples an epoch."""
        return len(self.rows)

    def __getitem__(self, number: int) -> Example:
        """The example of this number."""
        epoch, place = divmod(number, len(self.rows))
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(self.seed + epoch)
            self._epoch, self._order = epoch, torch.randperm(len(self.rows), generator=generator)
        return _example(self.rows[int(self._order[place])])


class Stream:
    """Encoded examples of a stream, read once in order; an earlier one than the last few starts it anew.

    Args:
        rows: From `encoded`, streaming.
        seed: Of the order within the buffer.
        kept: How far back examples can be had without starting anew.
    """

    def __init__(self, rows: Rows, seed: int, kept: int) -> None:
        self.rows = rows.shuffle(seed=seed, buffer_size=BUFFER)  # pyright: ignore[reportCallIssue]
        self.kept = kept
        self._start()

    def __getitem__(self, number: int) -> Example:
        """The example of this number."""
        if number < self.num_read - self.kept:
            self._start()
        while self.num_read <= number:
            self._read()
        return _example(self._recent[number])

    def _start(self) -> None:
        self.num_read = 0
        """Examples read so far."""
        self.truncated = 0
        """Those of them that were cut."""
        self._recent: dict[int, Mapping[str, Any]] = {}
        self._source = self._cycle()

    def _cycle(self) -> Iterator[Mapping[str, Any]]:
        while True:
            found = False
            for row in self.rows:
                if _has_response(row):
                    found = True
                    yield row
            if not found:
                raise SettingsError(NO_RESPONSE)

    def _read(self) -> None:
        row = self._recent[self.num_read] = next(self._source)
        self._recent.pop(self.num_read - self.kept, None)
        self.truncated += row["truncated"]
        self.num_read += 1


def _encode_row(row: Mapping[str, Any], vocabulary: Vocabulary, max_tokens: int) -> dict[str, Any]:
    messages = [Message.text(cast(Role, turn["role"]), turn["content"]) for turn in row["messages"]]
    whole = encode(messages, vocabulary)
    example = truncate(whole, max_tokens)
    parts = [
        _RESPONSE if response else _PROMPT if maskable else _GIVEN
        for maskable, response in zip(example.maskable, example.response, strict=True)
    ]
    num_tokens = len(example.ids)
    return {
        "ids": list(example.ids),
        "parts": parts,
        "num_tokens": num_tokens,
        "truncated": len(whole.ids) > num_tokens,
    }


def _example(row: Mapping[str, Any]) -> Example:
    parts = row["parts"]
    return Example(
        tuple(row["ids"]), tuple(part != _GIVEN for part in parts), tuple(part == _RESPONSE for part in parts)
    )


def _has_response(row: Mapping[str, Any]) -> bool:
    return _RESPONSE in row["parts"]


def _prompt_parts(example: Example) -> list[range]:
    """Runs of tokens that may be masked and are not response."""
    flags = [m and not r for m, r in zip(example.maskable, example.response, strict=True)]
    groups = [(flag, list(run)) for flag, run in groupby(range(len(flags)), key=flags.__getitem__)]
    return [range(run[0], run[-1] + 1) for flag, run in groups if flag]
