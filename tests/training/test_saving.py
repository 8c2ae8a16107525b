"""A checkpoint appears whole or not at all, whenever its making is killed."""

import os
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from dspy_diffusion_infill.training.saving import write_whole

CHANGES = ("mkdir", "open", "rename", "rmdir", "unlink")
"""What `pathlib` and `shutil` ask of the system for a change of a disk."""


class Killed(BaseException):
    """The process has ended: nothing tidies up after it."""


def dying(monkeypatch: pytest.MonkeyPatch, changes: int) -> None:
    """Let a process make so many changes, and then none any more."""
    left = iter(range(changes))

    def until_killed(change: Callable) -> Callable:
        def wrapped(*arguments, **named):
            if next(left, None) is None:
                raise Killed
            return change(*arguments, **named)

        return wrapped

    for name in CHANGES:
        monkeypatch.setattr(os, name, until_killed(getattr(os, name)))


def fill(folder: Path) -> None:
    for name in ("model", "tokenizer"):
        (folder / name).write_text("whole")


def left_by_a_kill(saving: Path) -> None:
    (saving / "whole").mkdir(parents=True)
    (saving / ".unfinished").touch()
    (saving / "whole" / "model").write_text("half")


def test_killed_at_any_moment_it_is_made_when_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for moment in count():
        folder = tmp_path / str(moment) / "saved"
        left_by_a_kill(folder.with_name("saved-saving"))
        try:
            with monkeypatch.context() as process:
                dying(process, moment)
                write_whole(folder, fill)
        except Killed:
            if not folder.exists():
                write_whole(folder, fill)
            assert {path.read_text() for path in folder.iterdir()} == {"whole"}
        else:
            break
    assert moment == 13, "changes in all"
    assert [path.name for path in folder.parent.iterdir()] == ["saved"]
