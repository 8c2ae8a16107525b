"""Accepted rewrites as commits: each can be looked at, and taken back, alone.

Pure: no dspy, no torch.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from types import SimpleNamespace
from typing import Any

from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.prompts.candidates import Candidate
from dspy_diffusion_infill.search.gains import Gain, Interval


@dataclass(frozen=True, slots=True)
class Edit:
    """One span of one predictor's instructions, rewritten.

    Pickled as a `SimpleNamespace` of the same attributes: a program that carries edits can be loaded where
    this package is not installed.
    """

    predictor: str
    start: int
    """First character of the span, in the text as the edits before this one left it."""
    before: str
    after: str
    gain: float
    """Of the score on all examples: the mean of the paired differences, unless there is a `set_metric`."""
    interval: Interval
    """Of the gain, at 95 %. On the examples that the edit was selected on both are on the high side."""
    moved: tuple[tuple[int, float], ...]
    """The examples whose score changed, by their number in the valset, and by how much."""
    metric_calls: int
    """Spent on the window, its losing candidates included."""
    pass_number: int

    def measured(self, gain: Gain) -> Edit:
        """The edit with gain, interval and moved examples as they were found."""
        return replace(self, gain=gain.size, interval=gain.interval, moved=gain.moved)

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Edit:
        """An edit from the plain data of `detailed_results`, of `run.json`, or `vars` of a pickled one."""
        moved = tuple((int(n), float(change)) for n, change in plain["moved"])
        low, high = plain["interval"]
        return cls(**{**plain, "interval": (low, high), "moved": moved})

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial(SimpleNamespace, **asdict(self)), ()

    def __copy__(self) -> Edit:
        return self

    def __deepcopy__(self, memo: object) -> Edit:
        return self


def as_edit(value: object) -> Edit | None:
    """The edit that a program carries, which may have been pickled since; None for anything else."""
    if isinstance(value, SimpleNamespace) and vars(value).keys() == {field.name for field in fields(Edit)}:
        return Edit.of(vars(value))
    return value if isinstance(value, Edit) else None


def revert_edit(
    instructions: Candidate, edits: Sequence[Edit], number: int
) -> tuple[dict[str, str], list[Edit]]:
    """Take one edit back, and leave those before and after it.

    Args:
        instructions: As all edits left them.
        edits: In the order in which they were made.
        number: Which of them, from 0.

    Returns:
        The instructions without the edit; and the other edits, as if it had never been made.

    Raises:
        SettingsError: If there is no such edit, the instructions are not those that the edits led to, or a
            later edit rewrote some of the same text.
    """
    if not 0 <= number < len(edits):
        raise SettingsError(f"number must be that of an edit, below {len(edits)}; got {number}.")
    edit, later = edits[number], list(edits[number + 1 :])
    start = edit.start
    for n, other in enumerate(later):
        if other.predictor != edit.predictor:
            continue
        if other.start >= start + len(edit.after):
            later[n] = replace(other, start=other.start + len(edit.before) - len(edit.after))
        elif other.start + len(other.before) <= start:
            start += len(other.after) - len(other.before)
        else:
            raise SettingsError(
                f"number must be that of an edit that no later one builds on; got {number}, some of whose "
                f"text edit {number + 1 + n} rewrote. Revert that one first."
            )
    text = _without(instructions[edit.predictor], start, edit)
    if inspect.cleandoc(text) != text:
        raise SettingsError(f"Edit {number} cannot be reverted alone: DSPy would shift the text around it.")
    return {**instructions, edit.predictor: text}, [*edits[:number], *later]


def before_edits(instructions: Candidate, edits: Sequence[Edit]) -> dict[str, str]:
    """The instructions as they were before all edits.

    Raises:
        SettingsError: If the instructions are not those that the edits led to.
    """
    texts = dict(instructions)
    for edit in reversed(edits):
        texts[edit.predictor] = _without(texts[edit.predictor], edit.start, edit)
    return texts


def _without(text: str, start: int, edit: Edit) -> str:
    end = start + len(edit.after)
    if text[start:end] != edit.after:
        raise SettingsError(
            f"The instructions must be those that the edits led to; {edit.after!r} does not stand at "
            f"character {start} of predictor {edit.predictor!r}."
        )
    return text[:start] + edit.before + text[end:]
