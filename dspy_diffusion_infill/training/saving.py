"""What training leaves behind: a checkpoint in one piece, which transformers and `engine.model.load` read."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import torch
from huggingface_hub import create_repo, upload_folder, whoami
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError
from huggingface_hub.utils import validate_repo_id
from peft import LoraConfig, get_peft_model
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import PreTrainedModel

from dspy_diffusion_infill.engine.checkpoint import weight_files
from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.training.plain import make_plain
from dspy_diffusion_infill.training.settings import Settings
from dspy_diffusion_infill.training.start import Start, read_weights
from dspy_diffusion_infill.training.work import writing

_TOKENIZER = (
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.*",
)
TORCH_SAYS = (SafetensorError, RuntimeError)
"""What a full disk raises where torch or safetensors writes."""
_UNFINISHED = ".unfinished"
"""Marks a folder that things are made in here."""
_WHOLE = "whole"
"""What is made there."""
_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""As safetensors files name them."""


def adapted(network: PreTrainedModel, settings: Settings) -> nn.Module:
    """The network, or LoRA adapters around it."""
    if not settings.lora:
        return network
    config = LoraConfig(
        r=settings.lora,
        lora_alpha=2 * settings.lora,
        target_modules="all-linear",  # the head, an output embedding, is not among them
        use_dora=settings.dora,
    )
    torch.manual_seed(settings.seed)
    return get_peft_model(network, config)


def merged(
    start: Start, before: Path | None, settings: Settings, state: dict[str, Tensor]
) -> PreTrainedModel:
    """A trained network on the CPU, from the weights that a run gathered; adapters merged into it.

    Args:
        start: Where the run started.
        before: The checkpoint its last stage started from; None for the start's own.
        settings: Of the run.
        state: Of what `adapted` made.
    """
    model: Any = adapted(read_weights(start, before), settings)
    model.load_state_dict(state)
    return model.merge_and_unload() if settings.lora else model


def save(network: PreTrainedModel, start: Start, folder: Path, dtype: torch.dtype, card: str) -> None:
    """Write a checkpoint with its tokenizer and model card.

    Args:
        network: Changed to `dtype`.
        start: Whose tokenizer it has.
        folder: Appears when everything is in it. Must not exist.
        dtype: Of the weights.
        card: The text of its README.md.
    """

    def fill(saving: Path) -> None:
        # The names of the class, not those of the checkpoint that the weights were first read from.
        network.to(dtype).save_pretrained(saving, save_original_format=False)  # pyright: ignore[reportArgumentType]
        for pattern in _TOKENIZER:
            for path in start.folder.glob(pattern):
                shutil.copyfile(path, saving / path.name)
        make_plain(saving)
        (saving / "README.md").write_text(card, encoding="utf-8")

    write_whole(folder, fill)


def write_whole(folder: Path, fill: Callable[[Path], None]) -> None:
    """Make a folder whole or not at all: a kill or a full disk leaves no half of it under its name.

    Raises:
        SettingsError: If something else lies where it is made.
        InfillError: If it cannot be written.
    """
    saving = folder.with_name(folder.name + "-saving")
    _clear(saving)
    with writing(folder, *TORCH_SAYS):
        saving.mkdir(parents=True)
        (saving / _UNFINISHED).touch()
        try:
            _fill(saving / _WHOLE, fill)
            (saving / _WHOLE).rename(folder)
        finally:
            _remove(saving)


def _fill(whole: Path, fill: Callable[[Path], None]) -> None:
    """Make a folder, and have it on the disk before it gets its name."""
    whole.mkdir()
    fill(whole)
    for path in whole.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _clear(saving: Path) -> None:
    """Remove what a killed run left."""
    if saving.exists() and not _is_own(saving):
        raise SettingsError(
            f"{str(saving)!r}, where a checkpoint is made, must not exist yet; it holds something else. "
            "Move that away, or name another output."
        )
    _remove(saving)


def _is_own(saving: Path) -> bool:
    return (saving / _UNFINISHED).is_file() or (saving.is_dir() and not any(saving.iterdir()))


def _remove(saving: Path) -> None:
    """What says whose it is goes last, so that a kill amid this leaves nothing that seems another's."""
    shutil.rmtree(saving / _WHOLE, ignore_errors=True)
    shutil.rmtree(saving, ignore_errors=True)


def check_repository(repository: str) -> None:
    """Refuse what could not be uploaded to, before anything is trained.

    Raises:
        SettingsError: If it is no hub id, nobody is logged in, or the hub cannot be reached.
    """
    try:
        validate_repo_id(repository)
        whoami()
    except (HFValidationError, LocalTokenNotFoundError, HfHubHTTPError) as error:
        raise SettingsError(
            f"push_to_hub must be a hub id that you may write to; got {repository!r}: {error} "
            "Correct it, or log in with 'hf auth login'."
        ) from error
    except (OSError, httpx.HTTPError) as error:
        raise SettingsError(
            f"push_to_hub must be a hub id that can be reached; {repository!r} cannot: {error}. Train "
            "without it; the same line with it then uploads what is there."
        ) from error


def push(folder: Path, repository: str) -> str:
    """Upload a checkpoint to the Hugging Face hub, with the login of its own tools; returns its address.

    A repository that is not there yet is made private: what a model is trained on, it may write.
    """
    address = create_repo(repository, exist_ok=True, private=True)
    upload_folder(repo_id=repository, folder_path=folder)
    return str(address)


def own_dtype(start: Start) -> torch.dtype:
    """The precision that most of the start's weights are kept in, of those that training knows."""
    sizes: Counter[torch.dtype] = Counter({torch.float32: 0})
    for path in weight_files(start.folder):
        with safe_open(path, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118
                weight = weights.get_slice(name)
                if dtype := _DTYPES.get(weight.get_dtype()):
                    sizes[dtype] += torch.Size(weight.get_shape()).numel()
    return max(sizes, key=sizes.__getitem__)
