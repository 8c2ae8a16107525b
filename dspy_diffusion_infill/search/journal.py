"""An append-only file of what a run has paid for, from which an interrupted run goes on.

Pure: no dspy, no torch.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.file_lock import lock_file

Place = tuple[str | int, ...]
"""What a record is about, e.g. ("valset", a digest of the candidate, 3)."""

BATCH = 16
"""Lines between two waits for the disk: a crash of the machine may lose these, one of the process none."""


class Journal:
    """Records of one run, one JSON line each. Safe to share between threads.

    A last line that was cut short by the end of a process, or is no record, is dropped; all others are kept.

    Args:
        file: Opened for reading and appending, without a buffer.
        fingerprint: What the run is of, by aspect. Another run's file is refused.

    Raises:
        SettingsError: If the file is another run's, or no journal; nothing was changed.
    """

    def __init__(self, file: io.FileIO, fingerprint: Mapping[str, str]) -> None:
        self._file, self._unsynced = file, 0
        self._threads = threading.Lock()
        self._records: dict[Place, dict[str, Any]] = {}
        lines, length = _whole_lines(file)
        if lines:
            _check_same(lines[0]["run"], fingerprint, file.name)
            self._records = {tuple(line.pop("at")): line for line in lines[1:]}
        file.truncate(length)
        if not lines:
            self._append({"run": dict(fingerprint)})

    def find(self, place: Place) -> dict[str, Any] | None:
        """The record of a place, as an earlier process wrote it."""
        return self._records.get(place)

    def of_kind(self, kind: str) -> list[tuple[Place, dict[str, Any]]]:
        """The records whose places begin with a word, as an earlier process wrote them, in order."""
        return [(place, record) for place, record in self._records.items() if place[0] == kind]

    def write(self, place: Place, record: Mapping[str, Any]) -> None:
        """Add a record; it survives the end of this process from here on."""
        self._append({"at": place, **record})

    def sync(self) -> None:
        """Wait until all records are on the disk."""
        os.fsync(self._file.fileno())

    def _append(self, line: Mapping[str, Any]) -> None:
        text = json.dumps(line).encode() + b"\n"
        with self._threads:
            self._file.write(text)
            self._unsynced += 1
            if self._unsynced % BATCH == 0:
                self.sync()


@contextlib.contextmanager
def open_journal(
    folder: str | os.PathLike[str] | None, fingerprint: Mapping[str, str], *, resume: bool
) -> Iterator[Journal | None]:
    """Open the journal of a folder for this process alone. Only the files' owner may read them.

    Args:
        folder: Made if it is not there; None for no journal.
        fingerprint: What the run is of.
        resume: Whether to go on from what the folder holds; else it begins anew.

    Raises:
        SettingsError: If it is no folder, another process uses it, or it holds another run.
    """
    if folder is None:
        yield None
        return
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(
            f"log_dir must be a folder, or one that can be made; got {folder}: {error}."
        ) from error
    with (
        _alone(folder),
        open(folder / "journal.jsonl", "ab+", buffering=0, opener=_private) as file,
    ):
        if not resume:
            file.truncate(0)
        journal = Journal(file, fingerprint)
        try:
            yield journal
        finally:
            journal.sync()


def is_faithful(value: object) -> bool:
    """Whether a value comes back from JSON as it was."""
    try:
        return json.loads(json.dumps(value)) == value
    except (TypeError, ValueError):
        return False


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; the system drops it with the process, however that ends."""
    with open(folder / "lock", "a+", opener=_private) as file:
        try:
            lock_file(file)
        except OSError as error:
            file.seek(0)
            raise SettingsError(
                f"log_dir must be used by one run at a time; got {folder}, which process {file.read()} uses. "
                "Use another folder, or end that process."
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _whole_lines(file: io.FileIO) -> tuple[list[dict[str, Any]], int]:
    """The records up to the last whole line, and how many bytes they take."""
    file.seek(0)
    lines = file.readall().split(b"\n")[:-1]
    if len(lines) > 1 and _record(lines[-1], "at") is None:  # torn, as a line without an end is
        lines.pop()
    records: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        if (record := _record(line, "at" if records else "run")) is None:
            raise SettingsError(
                f"Every line of {file.name!r} must be a record; line {number} is not. Delete that line, or "
                "begin anew with resume=False."
            )
        records.append(record)
    return records, sum(len(line) + 1 for line in lines)


def _record(line: bytes, name: str) -> dict[str, Any] | None:
    """What a line holds, if that is a record under this name."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    about = record.get(name) if isinstance(record, dict) else None
    if name == "run":
        return record if isinstance(about, dict) else None
    place = isinstance(about, list) and all(isinstance(part, str | int) for part in about)
    return record if place else None


def _check_same(found: Mapping[str, str], fingerprint: Mapping[str, str], name: object) -> None:
    other = [aspect for aspect in {**fingerprint, **found} if found.get(aspect) != fingerprint.get(aspect)]
    if other:
        raise SettingsError(
            f"log_dir must be the folder of this very run, or a new one; {name!r} is of a run with another "
            f"{', '.join(other)}. Use another folder, or begin this one anew with resume=False."
        )
