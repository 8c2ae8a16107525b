"""A person decides whether an edit that won is let in."""

from __future__ import annotations

from collections.abc import Callable

from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.search.edits import Edit
from dspy_diffusion_infill.search.fingerprint import digest
from dspy_diffusion_infill.search.journal import Journal
from dspy_diffusion_infill.search.quiet import aloud

Review = bool | Callable[[Edit], bool]
"""False lets every edit in, True asks at the terminal; or what says of an edit whether it is let in."""


class Reviewer:
    """Asks once about each edit, also when a run is resumed.

    Args:
        review: Whom to ask.
        journal: Keeps the answers, and gives those of an earlier process.
    """

    def __init__(self, review: Review, journal: Journal | None) -> None:
        self._review, self._journal = review, journal

    def __call__(self, edit: Edit) -> bool:
        """Whether an edit is let in."""
        if self._review is False:
            return True
        place = ("review", digest([edit.predictor, edit.start, edit.before, edit.after, edit.moved]))
        if self._journal is not None and (record := self._journal.find(place)) is not None:
            return bool(record["accepted"])
        with aloud():
            accepted = ask(edit) if self._review is True else self._review(edit)
        if not isinstance(accepted, bool):
            raise SettingsError(f"review must return True or False for an edit; got {accepted!r}.")
        if self._journal is not None:
            self._journal.write(place, {"accepted": accepted})
        return accepted


def ask(edit: Edit) -> bool:
    """Ask at the terminal; where nobody can answer, the run ends as with Ctrl-C."""
    low, high = edit.interval
    question = (
        f"{edit.predictor}, character {edit.start}: {edit.before!r} -> {edit.after!r}\n"
        f"gain {edit.gain:+.4g} ({low:+.4g} to {high:+.4g}). Keep it? [y/n] "
    )
    try:
        while (answer := input(question).strip().lower()) not in ("y", "yes", "n", "no"):
            pass
    except EOFError as error:
        raise KeyboardInterrupt from error
    return answer.startswith("y")
