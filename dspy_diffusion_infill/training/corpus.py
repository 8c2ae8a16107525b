"""Conversations as token ids: encoded once, cut to length, and drawn by number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import Any, Protocol, cast

import torch
from datasets import Dataset

from dspy_diffusion_infill.engine.vocabulary import Vocabulary
from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.prompts.canvas import Message, Role
from dspy_diffusion_infill.training.converting import Converted
from dspy_diffusion_infill.training.data import Example, encode
from dspy_diffusion_infill.training.sources import UNREADABLE, Rows, read

_GIVEN, _PROMPT, _RESPONSE = range(3)
"""What a stored token is part of; a given one is never masked."""

NO_RESPONSE = (
    "data must hold at least one example with a response; got none. Is each an assistant turn that says "
    "something, and max_tokens large enough?"
)

BUFFER = 1000
"""Rows that a stream is shuffled within."""


class Examples(Protocol):
    """Encoded examples by number, without end."""

    def __getitem__(self, number: int, /) -> Example:
        """The example of this number, always the same one."""
        ...


def truncate(example: Example, max_tokens: int, *, instructed: bool = False) -> Example:
    """Cut an example to a length: the parts of its prompt at their ends, the longest first; then its own.

    The response is what the prompt is infilled from, so that it is cut last.

    Args:
        example: As `encode` made it.
        max_tokens: Its length, at most.
        instructed: Whether the first part is the instructions, which are cut after the rest of the prompt.

    Example:
        >>> example = Example((1, 2, 3, 4, 5), (False, True, True, False, True), (False,) * 4 + (True,))
        >>> truncate(example, 4).ids
        (1, 2, 4, 5)
    """
    excess = len(example.ids) - max_tokens
    if excess <= 0:
        return example
    parts = _prompt_parts(example)
    in_order = [*sorted(parts[instructed:], key=len, reverse=True), *parts[:instructed]]
    cut = frozenset([at for part in in_order for at in reversed(part)][:excess])
    kept = [at for at in range(len(example.ids)) if at not in cut][:max_tokens]
    return Example(
        tuple(example.ids[at] for at in kept),
        tuple(example.maskable[at] for at in kept),
        tuple(example.response[at] for at in kept),
    )


def encoded(
    sources: Sequence[str], vocabulary: Vocabulary, max_tokens: int, *, streaming: bool = False
) -> list[Rows]:
    """Read and encode each source.

    Args:
        sources: As `sources.read` takes them.
        vocabulary: Of the model to train.
        max_tokens: Longer examples are cut.
        streaming: Read rows as they are needed.

    Raises:
        SettingsError: If a source cannot be read.
    """
    to_row = Converted(partial(_encode_row, vocabulary=vocabulary, max_tokens=max_tokens))
    read_rows = [read(source, streaming=streaming) for source in sources]
    return [rows.map(to_row, remove_columns=["messages"]) for rows in read_rows]


def answered(rows: Rows) -> Rows:
    """Leave out what has no response."""
    return rows.filter(_has_response)


class Corpus:
    """Encoded examples, every one of them once an epoch, in another order each time.

    Args:
        rows: From `answered`.
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
        return as_example(self.rows[int(self._order[place])])


class Stream:
    """Encoded examples of a stream, read once in order; an earlier one than the last few starts it anew.

    Args:
        rows: From `answered`, streaming.
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
        return as_example(self._recent[number])

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
            try:
                for row in self.rows:
                    found = True
                    yield row
            except SettingsError:
                raise
            except UNREADABLE as error:
                raise SettingsError(
                    f"data must be readable to their end; this stream is not: {error}. Read them without "
                    "streaming: then the row is named."
                ) from error
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
    instructed = any(turn["content"].strip() and turn["role"] == "system" for turn in row["messages"][:1])
    example = truncate(whole, max_tokens, instructed=instructed)
    said = any(turn["content"].strip() for turn in row["messages"] if turn["role"] == "assistant")
    parts = [
        _RESPONSE if response and said else _PROMPT if maskable else _GIVEN
        for maskable, response in zip(example.maskable, example.response, strict=True)
    ]
    num_tokens = len(example.ids)
    return {
        "ids": list(example.ids),
        "parts": parts,
        "num_tokens": num_tokens,
        "truncated": len(whole.ids) > num_tokens,
    }


def as_example(row: Mapping[str, Any]) -> Example:
    """An encoded row as it is trained on."""
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
