"""Find a checkpoint's files and read them without running any of its code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from tokenizers import Tokenizer

from dspy_diffusion_infill.errors import InfillError, ModelError, SettingsError

EMBEDDED = Path(__file__).parents[1] / "assets" / "embedded"

_PATTERNS = ("*.json", "*.txt", "*.model")
"""What is fetched: settings, words and sentencepiece models, which hold no code."""
_WEIGHTS = "*.safetensors"
_PICKLES = (".bin", ".pt", ".pth")
_SAMPLE_BYTES = 4096
"""Read at either end of a weight."""


def find_folder(source: str, revision: str | None = None, *, weights: bool = True) -> Path:
    """The folder of a checkpoint: the embedded one, a local one, or one fetched from the Hugging Face hub.

    Code and pickles are left where they are.

    Args:
        source: "embedded", a folder, or a hub id such as "GSAI-ML/LLaDA-8B-Instruct".
        revision: Branch, tag or commit on the hub; None for the default branch.
        weights: Whether they are fetched too.

    Raises:
        ModelError: If there is no such checkpoint.
        SettingsError: If a revision of a folder is asked for.
    """
    folder = EMBEDDED if source == "embedded" else Path(source).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise SettingsError(f"revision must be None for a folder; got {revision!r} and {source!r}.")
        return folder
    if source == "embedded":
        raise ModelError(
            "The embedded model is not part of this installation; name a folder or a hub id instead."
        )
    try:
        patterns: list[str] = [*_PATTERNS, _WEIGHTS] if weights else [*_PATTERNS]
        fetched = Path(snapshot_download(source, revision=revision, allow_patterns=patterns))
        if weights and not any(fetched.glob(_WEIGHTS)):
            raise _no_weights(source, _names(source, revision, fetched))
        return fetched
    except HFValidationError as error:
        raise ModelError(
            f"model must be 'embedded', a folder, or a hub id; got {source!r}: no such folder."
        ) from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(
            f"model must be 'embedded', a folder, or a hub id; got {source!r}: no such folder, "
            f"and the Hugging Face hub does not give it ({type(error).__name__})."
        ) from error


def _names(source: str, revision: str | None, fetched: Path) -> list[str]:
    """What a hub repository holds; what was fetched of it, if the hub cannot be asked."""
    try:
        return HfApi().list_repo_files(source, revision=revision)
    except (HfHubHTTPError, OSError):
        return [path.name for path in fetched.iterdir()]


def read_config(folder: Path) -> dict[str, Any]:
    """The checkpoint's config.json.

    Raises:
        ModelError: If it is missing, or no JSON object.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ModelError(f"A checkpoint must hold config.json; the folder {str(folder)!r} has none.")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{str(path)!r} must be JSON; it cannot be read: {error}.") from error
    if not isinstance(found, dict):
        raise ModelError(f"{str(path)!r} must hold a JSON object; got {type(found).__name__}.")
    return found


@contextmanager
def reading(what: str, folder: Path) -> Iterator[None]:
    """Turn whatever a library raises at a broken file into one sentence.

    Args:
        what: Is read: "The config".
        folder: Of the checkpoint.

    Raises:
        ModelError: In place of any error that is not of this package.
    """
    try:
        yield
    except InfillError:
        raise
    except (
        Exception
    ) as error:  # configs, tokenizers and weights are read by three libraries, each with its own
        said = " ".join(str(error).split())
        raise ModelError(
            f"{what} in {str(folder)!r} cannot be read: {said} ({type(error).__name__})."
        ) from error


def read_tokenizer(folder: Path) -> Tokenizer:
    """The checkpoint's fast tokenizer.

    Raises:
        ModelError: If tokenizer.json is missing or cannot be read.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ModelError(f"A checkpoint must hold tokenizer.json; the folder {str(folder)!r} has none.")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the tokenizers library raises nothing narrower
        raise ModelError(f"{str(path)!r} is not a tokenizer: {error}.") from error


def weight_files(folder: Path) -> list[Path]:
    """The checkpoint's safetensors files, in order.

    Raises:
        ModelError: If there are none. Pickles are refused: loading one runs code of the checkpoint's choice.
    """
    if files := sorted(folder.glob(_WEIGHTS)):
        return files
    raise _no_weights(str(folder), [path.name for path in folder.iterdir()])


def _no_weights(source: str, names: Iterable[str]) -> ModelError:
    pickles = sorted(name for name in names if name.endswith(_PICKLES))
    found = f"found {', '.join(pickles)}: a pickle, and loading one runs code" if pickles else "found none"
    return ModelError(
        f"Weights must be in safetensors files; in {source!r} {found}. "
        "Save the checkpoint again with save_pretrained(..., safe_serialization=True)."
    )


def fingerprint(folder: Path) -> str:
    """Eight hexadecimal digits that change with the checkpoint's config, tokenizer or weights.

    Both ends of every weight are read, and small ones (norms) whole, so that it is quick for gigabytes.

    Raises:
        ModelError: If there are no weights, or they are broken.
    """
    digest = hashlib.sha256()
    for name in ("config.json", "tokenizer.json"):
        digest.update((folder / name).read_bytes() if (folder / name).is_file() else b"")
    for path in weight_files(folder):
        digest.update(f"{path.name} {path.stat().st_size} ".encode())
        with path.open("rb") as file, reading("The weights", folder):
            for sample in _samples(file):
                digest.update(sample)
    return digest.hexdigest()[:8]


def _samples(file: BinaryIO) -> Iterator[bytes]:
    """The header of a safetensors file, and both ends of every weight."""
    length = int.from_bytes(file.read(8), "little")
    header = file.read(length)
    yield header
    for name, entry in json.loads(header).items():
        if name != "__metadata__":
            start, end = entry["data_offsets"]
            for at in (start, max(start, end - _SAMPLE_BYTES)):
                file.seek(8 + length + at)
                yield file.read(min(_SAMPLE_BYTES, end - at))
