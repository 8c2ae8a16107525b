"""The folder beside the output where a run's work lies until all is done: whose it is, and how it ends."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dspy_diffusion_infill.errors import InfillError, SettingsError
from dspy_diffusion_infill.file_lock import lock_file

Record = dict[str, Any]
"""What a run is, by name; two runs with equal records come to equal ends."""

_RECORD = "run.json"
_UNFINISHED = _RECORD + ".tmp"
_LOCK = "lock"
_STAGES = "[0-9]*-*"


def work_folder(output: Path) -> Path:
    """Where the work of a run with this output lies."""
    return output.with_name(output.name + "-work")


def check_output(output: Path) -> None:
    """Refuse an output that cannot be written.

    Raises:
        SettingsError: If it exists, or lies below a file.
    """
    if output.exists():
        raise SettingsError(f"output must not exist yet; got {str(output)!r}. Name another, or remove it.")
    above = next(folder for folder in output.absolute().parents if folder.exists())
    if not above.is_dir():
        raise SettingsError(
            f"output must lie in a folder; got {str(output)!r}, but {str(above)!r} is a file."
        )


def check_apart(output: Path, data: Sequence[str]) -> None:
    """Refuse an output among the data: what is written there would be read as data when the run goes on.

    Raises:
        SettingsError: If it lies in one of these folders.
    """
    for source in data:
        folder = Path(source).expanduser()
        if source and folder.is_dir() and output.absolute().is_relative_to(folder.absolute()):
            raise SettingsError(
                f"output must lie outside the data, which its files would join; got {str(output)!r} in "
                f"{source!r}."
            )


def check(work: Path, record: Record) -> None:
    """Refuse work that is not this run's own; another's without a checkpoint may be begun anew.

    Raises:
        SettingsError: If the folder holds other work, or something else.
    """
    found = read_record(work)
    if found is None and work.exists() and not _is_empty(work):
        raise SettingsError(
            f"{str(work)!r}, where the work of this output goes, must be no folder yet, or that of a run; it "
            "holds something else. Move that away, or name another output."
        )
    odd = sorted(name for name in {**record, **(found or {})} if record.get(name) != (found or {}).get(name))
    if found is not None and odd and _has_checkpoint(work):
        raise SettingsError(
            f"{str(work)!r} must hold this run's own work; it was begun with another {', '.join(odd)}. "
            "Repeat those, name another output, or remove the folder."
        )


@contextmanager
def begun(output: Path, record: Record) -> Iterator[None]:
    """Keep the folder of the work for this process, and say in it whose it is; nothing in it is removed.

    Raises:
        SettingsError: If another process keeps it, or left there what `check_output` and `check` refuse.
        InfillError: If it cannot be written.
    """
    work = work_folder(output)
    with writing(work):
        work.mkdir(parents=True, exist_ok=True)
        opened = (work / _LOCK).open("a")
    with opened as file:  # the system drops the lock with the process, however that ends
        try:
            lock_file(file)
        except OSError as error:
            raise SettingsError(
                f"{str(work)!r} must be used by one run at a time; another one uses it ({error}). Let "
                "that one end, or name another output."
            ) from error
        check_output(output)
        check(work, record)
        with writing(work):
            (work / _UNFINISHED).write_text(json.dumps(record, indent=1), encoding="utf-8")
            os.replace(work / _UNFINISHED, work / _RECORD)
        yield


@contextmanager
def writing(path: Path, *also: type[Exception]) -> Iterator[None]:
    """Say what to do where a disk is full.

    Args:
        path: What is written.
        also: What else than an `OSError` says so.

    Raises:
        InfillError: If writing fails.
    """
    try:
        yield
    except (OSError, *also) as error:
        raise InfillError(
            f"The disk must take {str(path)!r}; it does not: {error}. Make room there, or name an output "
            "elsewhere. With the same output, training then goes on from its last checkpoint."
        ) from error


def finish(work: Path, done: Path, output: Path) -> None:
    """Give the checkpoint its name, with the logs of all stages and its record in it, and remove the rest.

    Killed at any moment it can be repeated; once the checkpoint has its name, nothing large is left.
    """
    for logs in sorted(work.glob(_STAGES + "/runs")):
        if logs.parent != done:
            (done / "runs").mkdir(exist_ok=True)
            logs.rename(done / "runs" / logs.parent.name)
    for stage in work.glob(_STAGES):
        if stage != done:
            shutil.rmtree(stage)
    shutil.copyfile(work / _RECORD, done / _RECORD)
    done.rename(output)
    (work / _RECORD).unlink()
    with suppress(OSError):  # somebody's notes; or a system that removes no open file
        (work / _LOCK).unlink()
        work.rmdir()


def read_record(folder: Path) -> Record | None:
    """Of the run whose work, or whose output, a folder holds; None if it holds neither."""
    try:
        found = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and {"model", "data"} <= found.keys() else None


def last_checkpoint(output: Path) -> str | None:
    """The newest checkpoint that was written to its end: Trainer writes its state last."""
    found = [path for path in output.glob("checkpoint-*") if _is_whole(path)]
    newest = max(found, key=lambda path: int(path.name.rpartition("-")[2]), default=None)
    return newest and str(newest)


def as_record(what: Mapping[str, Any]) -> Record:
    """As it is read back from JSON."""
    return json.loads(json.dumps(what))


def _is_empty(work: Path) -> bool:
    return work.is_dir() and {path.name for path in work.iterdir()} <= {_UNFINISHED, _LOCK}


def _has_checkpoint(work: Path) -> bool:
    return any(path.name.endswith("-done") or last_checkpoint(path) for path in work.glob(_STAGES))


def _is_whole(checkpoint: Path) -> bool:
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True
