"""Which parts of an instruction to rewrite: windows in the infiller's tokens, held as character ranges.

Pure: no dspy, no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from dspy_diffusion_infill.checks import check_whole
from dspy_diffusion_infill.errors import SettingsError

Order = Literal["successive", "independent", "least_sure"]
Offsets = Sequence[tuple[int, int]]
"""Character range (start, end) of each token of a text, in order."""


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a text to rewrite: characters `start` to `end`, `end` excluded."""

    start: int
    end: int
    masks: tuple[int, ...]
    """Mask tokens of each masked part that stands in for it."""
    around: tuple[str, ...] = ("", "")
    """Text given around the masked parts, one piece more than there are of them."""

    def fill(self, texts: Iterable[str]) -> str:
        """What comes in the window's place, with a text for each masked part."""
        first, *rest = self.around
        return first + "".join(text + piece for text, piece in zip(texts, rest, strict=True))

    def replace(self, text: str, content: str) -> str:
        """Put `content` where the window is; every character outside stays as it was."""
        return text[: self.start] + content + text[self.end :]

    def given(self, text: str) -> tuple[str, ...]:
        """Everything around the masked parts, in reading order: the rest of the text as well."""
        first, *between, last = self.around
        return (text[: self.start] + first, *between, last + text[self.end :])

    def filling_of(self, text: str, changed: str) -> str:
        """What stands in the window's place in `changed`, which is `text` but for that."""
        return changed[self.start : len(changed) - (len(text) - self.end)]


Cutter = Callable[[str, Offsets, Iterable[tuple[int, int]]], list[Window]]
"""(a text, its tokens, the character ranges that are locked) -> its windows, from left to right."""


class Masking(Protocol):
    """Which parts of a program's instructions are rewritten."""

    @property
    def order(self) -> Order:
        """Whether a window is decided before the next one is filled, or all of them after."""
        ...

    @property
    def passes(self) -> int | None:
        """Most passes over all windows. None: until no window helped in two passes running."""
        ...

    def cutter(self, predictor: str, first: str) -> Cutter:
        """What says which windows one predictor has, given its name and its instructions at first."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SlidingWindow:
    """Slide over the whole text, a few tokens at a time.

    Source: the sliding window of prompt infilling (arXiv:2604.03677, Sec. 5.3, App. E), with its sizes and
    order as defaults. The paper leaves open what happens at the end of a text and how often to pass over it:
    here the last window is a short one, and passes repeat while they help.

    Example:
        >>> words = [(0, 4), (5, 7), (8, 11)]
        >>> [(w.start, w.end) for w in SlidingWindow(window=2, stride=1).windows("Rate it now", words)]
        [(0, 7), (5, 11)]
    """

    window: int = 8
    """Tokens rewritten at a time."""
    stride: int = 4
    """Tokens from the start of one window to the start of the next."""
    mask: int = 8
    """Mask tokens put in place of a window, also of a short one: the text may get longer or shorter."""
    snap: bool = True
    """Grow each window to whole words. False: a window may begin or end inside a word, as the paper's do."""
    order: Order = "successive"
    """`successive`: windows are decided one after the other, and an accepted one changes the text that later
    ones see. `independent`: all windows of the program are filled in one batch, from one text and with the
    same examples; then the winners that do not overlap are put together, the largest gain first. If they
    score higher together than the best of them alone, all stay; else that one does. `least_sure`: as
    successive, but the windows that the model finds least likely beside the examples or traces come first;
    after each accepted one they are ranked anew. Needs an infiller that is a `Scorer`, and a pass of its
    model for every window at each ranking. (Spans, refined in rounds: arXiv:2602.18449; the rule is ours.)"""
    passes: int | None = None
    """Most passes over the text. None: until no window helped in two passes running (each pass is conditioned
    on other examples), or the budget is spent."""

    def __post_init__(self) -> None:
        sizes = {"window": self.window, "stride": self.stride, "mask": self.mask}
        check_whole(sizes if self.passes is None else {**sizes, "passes": self.passes})
        for name, value in sizes.items():
            if value < 1:
                raise SettingsError(f"{name} must be at least 1; got {value}.")
        if self.stride > self.window:
            raise SettingsError(
                f"stride must be at most window, {self.window}, so that no token is skipped; "
                f"got {self.stride}."
            )
        if self.order not in get_args(Order):
            known = ", ".join(map(repr, get_args(Order)))
            raise SettingsError(f"order must be one of {known}; got {self.order!r}.")
        if self.passes is not None and self.passes < 1:
            raise SettingsError(f"passes must be at least 1, or None; got {self.passes}.")

    def cutter(self, predictor: str, first: str) -> Cutter:
        """What says which windows one predictor has: the same for all of them."""
        return self.windows

    def windows(self, text: str, offsets: Offsets, locked: Iterable[tuple[int, int]] = ()) -> list[Window]:
        """Cover every token of `text` that is not locked, in order.

        Args:
            text: What is to be rewritten.
            offsets: Its tokens, as `Infiller.offsets` gives them.
            locked: Character ranges that no window may touch.

        Returns:
            The windows from left to right, the last one before a lock or the end perhaps short. A text of at
            most `window` tokens, none of them locked, is one window from its first to its last character. No
            two begin at the same character.
        """
        locked = list(locked)
        if not locked and len(offsets) <= self.window:
            return [Window(0, len(text), (self.mask,))]
        return [window for run in _unlocked_runs(offsets, locked) for window in self._slide(text, run)]

    def _slide(self, text: str, run: Offsets) -> Iterable[Window]:
        # rounded up: the first window that reaches the end
        last = max(0, -(-(len(run) - self.window) // self.stride))
        windows = [self._window(text, run, n * self.stride) for n in range(last + 1)]
        # of those that begin at the same word, the one that reaches furthest
        return {window.start: window for window in windows}.values()

    def _window(self, text: str, run: Offsets, first: int) -> Window:
        tokens = run[first : first + self.window]
        start, end = tokens[0][0], max(end for _, end in tokens)
        if self.snap:
            start, end = _whole_words(text, start, end, run[0][0], max(end for _, end in run))
        return Window(start, end, (self.mask,))


def _whole_words(text: str, start: int, end: int, low: int, high: int) -> tuple[int, int]:
    """The range grown until it cuts no word, though not beyond `low` and `high`."""

    def cuts(at: int) -> bool:
        return text[at - 1].isalnum() and text[at].isalnum()

    while start > low and cuts(start):
        start -= 1
    while end < high and cuts(end):
        end += 1
    return start, end


def _unlocked_runs(offsets: Offsets, locked: Sequence[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """Tokens in a row that touch no lock, with none between them."""

    def gap(token: tuple[int, int], before: int) -> bool:
        return any(start < token[1] and before < end for start, end in locked)

    runs: list[list[tuple[int, int]]] = [[]]
    for token in offsets:
        if gap(token, token[0]):
            runs.append([])
            continue
        if runs[-1] and gap(token, runs[-1][-1][1]):
            runs.append([])
        runs[-1].append(token)
    return [run for run in runs if run]
