"""Find a checkpoint's files and read them without running any of its code."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from tokenizers import Tokenizer

from dspy_diffusion_infill.errors import ModelError

EMBEDDED = Path(__file__).parents[1] / "assets" / "embedded"

_SAMPLES = 64
_SAMPLE_BYTES = 4096


def find_folder(source: str, revision: str | None = None) -> Path:
    """The folder of a checkpoint: the embedded one, a local one, or one fetched from the Hugging Face hub.

    Only JSON, text and safetensors files are fetched; code and pickles are left where they are.

    Args:
        source: "embedded", a folder, or a hub id such as "GSAI-ML/LLaDA-8B-Instruct".
        revision: Branch, tag or commit on the hub; None for the default branch.

    Raises:
        ModelError: If there is no such checkpoint.
    """
    folder = EMBEDDED if source == "embedded" else Path(source).expanduser()
    if folder.is_dir():
        return folder
    if source == "embedded":
        raise ModelError(
            "The embedded model is not part of this installation; name a folder or a hub id instead."
        )
    try:
        patterns = ["*.json", "*.txt", "*.safetensors"]
        return Path(snapshot_download(source, revision=revision, allow_patterns=patterns))
    except HFValidationError as error:
        raise ModelError(
            f"model must be 'embedded', a folder, or a hub id; got {source!r}: no such folder."
        ) from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(
            f"model must be 'embedded', a folder, or a hub id; got {source!r}: no such folder, "
            f"and the Hugging Face hub does not give it ({type(error).__name__})."
        ) from error


def read_config(folder: Path) -> dict[str, Any]:
    """The checkpoint's config.json.

    Raises:
        ModelError: If it is missing or not JSON.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ModelError(f"A checkpoint must hold config.json; the folder {str(folder)!r} has none.")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{str(path)!r} must be JSON; it cannot be read: {error}.") from error


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
    if files := sorted(folder.glob("*.safetensors")):
        return files
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth"))
    found = f"found {', '.join(pickles)}: a pickle, and loading one runs code" if pickles else "found none"
    raise ModelError(
        f"Weights must be in safetensors files; in {str(folder)!r} {found}. "
        "Save the checkpoint again with save_pretrained(..., safe_serialization=True)."
    )


def fingerprint(folder: Path) -> str:
    """Eight hexadecimal digits that change with the checkpoint's config, tokenizer or weights.

    Of the weights it reads sizes, headers and a spread of samples, so that it is quick for gigabytes.
    """
    digest = hashlib.sha256()
    for name in ("config.json", "tokenizer.json"):
        digest.update((folder / name).read_bytes() if (folder / name).is_file() else b"")
    for path in weight_files(folder):
        size = path.stat().st_size
        digest.update(f"{path.name} {size} ".encode())
        with path.open("rb") as file:
            for sample in range(_SAMPLES):
                file.seek(size * sample // _SAMPLES)
                digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:8]
