"""Spans of an instruction that must survive, byte for byte.

Pure: no dspy, no torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

from dspy_diffusion_infill.errors import SettingsError

Lock = str | re.Pattern[str]
"""A text to keep wherever it stands, or a pattern whose matches are kept."""

LockSetting = Literal["auto"] | None | Sequence[Lock] | Mapping[str, Literal["auto"] | Sequence[Lock]]
"""The word "auto"; None for no locks; locks to add to the automatic ones, for all predictors or by name
("auto": none)."""

AUTOMATIC: tuple[re.Pattern[str], ...] = (
    re.compile(r"\{\{.*?\}\}|\{[^{}\n]*\}"),  # placeholders
    re.compile(r"\[\[ ## .*? ## \]\]"),  # field markers of DSPy's adapters
    re.compile(r"```.*?```", re.DOTALL),
    re.compile(r"`[^`\n]+`"),
    re.compile(r"\"[^\"\n]+\"|“[^”\n]+”|(?<!\w)'[^'\n]+'(?!\w)"),  # quoted literals, no apostrophes
    re.compile(r"https?://[^\s<>\"')\]]*[^\s<>\"')\].,;:!?]"),
    re.compile(r"</?[A-Za-z][\w-]*>"),
)


def check_locks(setting: LockSetting) -> None:
    """Refuse a setting that names no locks.

    Raises:
        SettingsError: If a lock is neither text nor a compiled pattern, or is empty; or if locks can be read
            only once.
    """
    named = setting if isinstance(setting, Mapping) else {"": "auto" if setting is None else setting}
    for locks in named.values():
        if locks == "auto":
            continue
        if isinstance(locks, str) or not isinstance(locks, Iterable):
            raise SettingsError(f"lock must be 'auto', None, or a list of locks; got {locks!r}.")
        if isinstance(locks, Iterator):  # empty once it was looked at: it would lock nothing
            raise SettingsError(f"lock must be a list, to be read often; got {locks!r}. Make it a list.")
        for lock in locks:
            if not isinstance(lock, str | re.Pattern) or lock in ("", re.compile("")):
                raise SettingsError(f"A lock must be a text or a compiled pattern; got {lock!r}.")


def locks_for(
    setting: LockSetting, predictor: str, field_names: Iterable[str], protocol: Iterable[str]
) -> list[Lock]:
    """The locks of one predictor.

    Args:
        setting: What the user asked for.
        predictor: Its name.
        field_names: Locked as whole words, unless the setting is None.
        protocol: Text that a module needs in this predictor's instructions, e.g. its list of tools.
    """
    if setting is None:
        return []
    words = [re.compile(rf"(?<![\w-]){re.escape(name)}(?![\w-])") for name in field_names]
    own = setting.get(predictor, ()) if isinstance(setting, Mapping) else setting
    return [*protocol, *AUTOMATIC, *words, *(() if own == "auto" else own)]


def locked_spans(text: str, locks: Iterable[Lock]) -> list[tuple[int, int]]:
    """Where a text is locked: character ranges in order, apart from each other.

    Example:
        >>> locked_spans("Cite {source} as `ref`.", AUTOMATIC)
        [(5, 13), (17, 22)]
    """
    patterns = [re.compile(re.escape(lock)) if isinstance(lock, str) else lock for lock in locks]
    found = sorted(match.span() for pattern in patterns for match in pattern.finditer(text) if match.group())
    merged: list[tuple[int, int]] = []
    for start, end in found:
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def unlocked(
    before: str, after: str, locks: Sequence[Lock], rewritten: tuple[int, int] = (0, 0)
) -> str | None:
    """A locked text that a rewrite leaves without its lock, e.g. by a quote that pairs with another one.

    Args:
        before: Where texts are locked.
        after: The rewrite; it must hold them in the same order, each as locked text.
        locks: Of both.
        rewritten: Characters of the first that may go, whatever is locked there.

    Returns:
        The first such text; None if there is none.

    Example:
        >>> unlocked('Say "no".', '12" of "no".', AUTOMATIC)
        '"no"'
    """
    held, place = locked_spans(after, locks), 0
    for start, end in locked_spans(before, locks):
        if start < rewritten[1] and rewritten[0] < end:
            continue
        text = before[start:end]
        found = (after.find(text, max(low, place), high) for low, high in held)
        if (first := next((n for n in found if n >= 0), None)) is None:
            return text
        place = first + len(text)
    return None
