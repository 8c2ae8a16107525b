"""A prompt on its own, as canvases: its regions or sliding windows masked, beside examples.

Pure: no dspy, no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from dspy_diffusion_infill.commands.rows import Row
from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.prompts.candidates import as_read
from dspy_diffusion_infill.prompts.canvas import Canvas, Filling, Infiller, Masked, Message
from dspy_diffusion_infill.prompts.locks import AUTOMATIC, locked_spans
from dspy_diffusion_infill.prompts.templates import INSTRUCTIONS, MASK, Template
from dspy_diffusion_infill.prompts.windows import SlidingWindow, Window

OUTPUT = "output"
"""Column of an example's reference output; every other one is an input."""
AROUND_CHARS = 40
"""Of the text before and behind a filling, when it is shown."""

Piece = tuple[str, bool]
"""A text, and whether the infiller wrote it."""


@dataclass(frozen=True, slots=True)
class Region:
    """A window of a prompt, and the fillings for it, the likeliest first, without repeats."""

    prompt: str
    window: Window
    fillings: tuple[Filling, ...] = ()

    @classmethod
    def filled(cls, prompt: str, window: Window, fillings: Iterable[Filling]) -> Region:
        """A region with its fillings put in order."""
        distinct: dict[tuple[str, ...], Filling] = {}
        for filling in sorted(fillings, key=lambda filling: -filling.log_likelihood):
            distinct.setdefault(filling.texts, filling)
        return cls(prompt, window, tuple(distinct.values()))

    @property
    def before(self) -> str:
        """What stands there now; nothing that counts where the prompt is a template."""
        return self.prompt[self.window.start : self.window.end]

    def pieces(self, filling: Filling) -> list[Piece]:
        """The prompt with a filling, in reading order."""
        first, *rest = self.window.given(self.prompt)
        between = zip(filling.texts, rest, strict=True)
        pieces = [(first, False), *(piece for new, old in between for piece in ((new, True), (old, False)))]
        return [piece for piece in pieces if piece[0]]

    def canvas(self, context: tuple[Message, ...]) -> Canvas:
        """The prompt as a system message with the region masked, then examples."""
        first, *rest = self.window.given(self.prompt)
        masked = zip(map(Masked, self.window.masks), rest, strict=True)
        parts = [first, *(part for pair in masked for part in pair)]
        return Canvas((Message("system", tuple(part for part in parts if part != "")),), context)


def choose_masking(
    prompt: str, window: int | None = None, stride: int | None = None, mask: int | None = None
) -> SlidingWindow | Template:
    """Say where a prompt is to be infilled.

    Args:
        prompt: With `{{mask:N}}`, which say it themselves; or without, for windows that slide over it.
        window: Tokens rewritten at a time; None for the default.
        stride: Tokens from window to window; None for half of the window.
        mask: Mask tokens in place of a window; None for as many as its own.

    Raises:
        SettingsError: If there are masks, and windows are asked for; or a number breaks its rule.
    """
    if not MASK.search(prompt):
        width = SlidingWindow().window if window is None else window
        return SlidingWindow(
            window=width,
            stride=max(1, width // 2) if stride is None else stride,
            mask=width if mask is None else mask,
        )
    if (window, stride, mask) != (None, None, None):
        raise SettingsError(
            "window, stride and mask must be left out for a prompt with {{mask:N}}, which says itself where "
            "to infill."
        )
    return Template(prompt)


def regions(prompt: str, masking: SlidingWindow | Template, infiller: Infiller) -> list[Region]:
    """Cut a prompt: all masks of a template are one region; windows leave out what an optimizer would lock.

    Args:
        prompt: The text.
        masking: As `choose_masking` gives it.
        infiller: Says what its tokens are.

    Raises:
        SettingsError: If nothing is left to rewrite.
    """
    if isinstance(masking, Template):
        # what the template calls instructions is here a text like any other
        return [Region("", window) for window in masking.cutter("", INSTRUCTIONS)("", [], [])]
    text = as_read(prompt)
    offsets = infiller.offsets(text)
    windows = masking.windows(text, offsets, locked_spans(text, AUTOMATIC)) if offsets else []
    if not windows:
        raise SettingsError("The prompt must hold text that is not locked, or {{mask:N}}; it holds neither.")
    return [Region(text, window) for window in windows]


def turns(rows: Sequence[Row]) -> tuple[Message, ...]:
    """Examples as turns: the inputs, then the output.

    A single input is shown as it is, several as `name: value` lines, as `CompactAdapter` does.

    Raises:
        SettingsError: If a row has no output, no input, or a null.
    """
    return tuple(turn for row in rows for turn in _example(row))


def excerpt(pieces: Sequence[Piece]) -> list[Piece]:
    r"""The same on one line, with a little of the text around what was written.

    Example:
        >>> excerpt([("Rate it.\n", False), ("Now", True), (" " + "o" * 60, False)])[:2]
        [('Rate it.\\n', False), ('Now', True)]
    """
    last = len(pieces) - 1
    return [
        (_short(piece, head=at > 0, tail=at < last) if not new else _line(piece), new)
        for at, (piece, new) in enumerate(pieces)
    ]


def _example(row: Row) -> Iterator[Message]:
    inputs = {name: value for name, value in row.values.items() if name != OUTPUT}
    if OUTPUT not in row.values or not inputs:
        raise SettingsError(
            f"An example must have {OUTPUT!r} and at least one input; {row.place} has {sorted(row.values)}."
        )
    if empty := [name for name, value in row.values.items() if value is None]:
        raise SettingsError(
            f"An example must have a value in every column; {row.place} has null in {empty[0]!r}."
        )
    alone = len(inputs) == 1
    lines = [str(value) if alone else f"{name}: {value}" for name, value in inputs.items()]
    yield Message.text("user", "\n".join(lines))
    yield Message.text("assistant", str(row.values[OUTPUT]))


def _short(text: str, *, head: bool, tail: bool) -> str:
    kept = AROUND_CHARS * (head + tail)
    if len(text) <= kept:
        return _line(text)
    return f"{_line(text[:AROUND_CHARS]) if head else ''}...{_line(text[-AROUND_CHARS:]) if tail else ''}"


def _line(text: str) -> str:
    """What cannot be printed as it is written in Python."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)
