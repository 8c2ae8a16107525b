"""What commands say: results on standard output, all else on standard error; JSON for machines."""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, TextIO

import typer

FAILED, USAGE, INTERRUPTED = 1, 2, 130
"""Exit codes beside 0."""

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]


def say(line: str = "") -> None:
    """Print a line of a result."""
    typer.echo(line)


def note(line: str) -> None:
    """Print a line that is no result."""
    typer.echo(line, err=True)


def print_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object: ASCII, and no number that JSON does not have."""
    typer.echo(json.dumps(value, indent=1, allow_nan=False))


@contextlib.contextmanager
def only_json(wanted: bool) -> Iterator[None]:
    """Send what others print to standard error, so that JSON stands alone on standard output."""
    with contextlib.ExitStack() as stack:
        if wanted:
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))
            stack.enter_context(_of_children_too())
        yield


@contextlib.contextmanager
def _of_children_too() -> Iterator[None]:
    """The same for other processes and for libraries in C, which know no `sys.stdout`."""
    try:
        kept = os.dup(1)
    except OSError:  # closed; nothing can be printed there
        yield
        return
    try:
        os.dup2(2, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


@contextlib.contextmanager
def ended_as_by_ctrl_c() -> Iterator[None]:
    """Let a request to end, as batch systems send it, keep what Ctrl-C keeps."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def marked(pieces: Iterable[tuple[str, bool]]) -> str:
    """A text whose changed pieces are bold and green, or in brackets where there are no colours.

    Args:
        pieces: Of the text, in order, each with whether it is a changed one.
    """
    return "".join(coloured(piece, "green", f"[{piece}]") if changed else piece for piece, changed in pieces)


def coloured(text: str, colour: str, plain: str) -> str:
    """A text in bold and a colour; `plain` where there are no colours."""
    out: TextIO | None = sys.stdout  # None where the shell closed it
    colours = out is not None and out.isatty() and not os.environ.get("NO_COLOR")
    return typer.style(text, fg=colour, bold=True) if colours else plain


def quieten(model: str | None) -> None:
    """Keep back what libraries would say about every step; the commands say what matters.

    Args:
        model: What will be loaded; a bar is shown for all but the embedded one, which takes no time.
    """
    logging.getLogger("dspy.evaluate").setLevel(logging.WARNING)
    if model != "embedded":
        return
    with contextlib.suppress(ModuleNotFoundError):  # who needs it says what to install
        importlib.import_module("transformers.utils.logging").disable_progress_bar()
