"""The checkpoint that training starts from: vocabulary and sizes without its weights, then its weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from dspy_diffusion_infill.engine import dream, llada
from dspy_diffusion_infill.engine.checkpoint import find_folder, read_config, read_tokenizer, weight_files
from dspy_diffusion_infill.engine.placement import Placement
from dspy_diffusion_infill.engine.vocabulary import Vocabulary
from dspy_diffusion_infill.errors import ModelError

Family = Literal["llada", "dream"]

_FAMILIES: dict[str, Family] = {"llada": "llada", "llama": "llada", "Dream": "dream", "qwen2": "dream"}

_SIZES = ("max_position_embeddings", "vocab_size", "num_hidden_layers", "hidden_size", "intermediate_size")


@dataclass(frozen=True, slots=True)
class Start:
    """A LLaDA or a Dream on disk."""

    source: str
    folder: Path
    family: Family
    vocabulary: Vocabulary
    context_length: int
    num_parameters: int

    @property
    def shift(self) -> int:
        """How many places before a token its logits are read."""
        return 1 if self.family == "dream" else 0


def read_start(source: str, *, weights: bool = True) -> Start:
    """Look at a checkpoint; no weights are read.

    Args:
        source: "embedded", a folder, or a hub id such as "GSAI-ML/LLaDA-8B-Instruct".
        weights: Whether those of a hub id are fetched. Without them, parameters are counted from the config.

    Raises:
        ModelError: If there is no such checkpoint, it is broken, or it is neither a LLaDA nor a Dream.
    """
    folder = find_folder(source, weights=weights)
    settings = read_config(folder)
    family = _FAMILIES.get(settings.get("model_type", ""))
    if family is None:
        raise ModelError(
            "A model to train must be a LLaDA or a Dream, published or in the shape of Llama or Qwen2; "
            f"config.json of {source!r} says {settings.get('model_type')!r}."
        )
    _check_sizes(settings, source)
    length = settings.get("max_sequence_length") or settings["max_position_embeddings"]
    if family == "llada":
        num_ids = settings.get("embedding_size") or settings["vocab_size"]
        tokenizer = read_tokenizer(folder)
        vocabulary = Vocabulary(tokenizer, llada.chat_format(tokenizer, settings), num_ids)
    else:
        length = min(length, dream.CONTEXT_LENGTH)
        vocabulary = Vocabulary(dream.tokenizer_of(folder), dream.CHAT, settings["vocab_size"])
    fetched = weights or source == "embedded" or Path(source).expanduser().is_dir()
    number = _num_parameters(folder) if fetched else _num_described(settings, family)
    return Start(source, folder, family, vocabulary, length, number)


def read_weights(start: Start, folder: Path | None = None) -> PreTrainedModel:
    """The network, in float32 on the CPU, ready to be trained; shared with nobody.

    Args:
        start: Where training starts.
        folder: Of a later checkpoint of the same model; None for the start's own.
    """
    load = llada.load if start.family == "llada" else dream.load
    placement = Placement(torch.device("cpu"), torch.float32)
    network = load(folder or start.folder, name=start.source, placement=placement).network
    # With these, a checkpoint is saved under the published names, which Trainer does not read back.
    vars(network).pop("_weight_conversions", None)
    return network.requires_grad_(True).train()


def _check_sizes(settings: dict[str, Any], source: str) -> None:
    if settings["model_type"] == "llada":
        llada.llama_config(settings)
        return
    if lacking := [name for name in _SIZES if name not in settings]:
        raise ModelError(f"config.json of {source!r} must hold {', '.join(lacking)}; it does not.")


def _num_described(settings: dict[str, Any], family: Family) -> int:
    """Parameters of the network that a config describes."""
    if family == "dream":
        architecture, config = Qwen2ForCausalLM, Qwen2Config.from_dict(settings | dream.QWEN2_SHAPED)
    elif settings["model_type"] == "llada":
        architecture, config = LlamaForCausalLM, llada.llama_config(settings)
    else:
        architecture, config = LlamaForCausalLM, LlamaConfig.from_dict(settings | llada.LLAMA_SHAPED)
    with torch.device("meta"):
        return architecture(config).num_parameters()  # pyright: ignore[reportArgumentType]


def _num_parameters(folder: Path) -> int:
    return sum(_num_weights(path) for path in weight_files(folder))


def _num_weights(path: Path) -> int:
    try:
        with safe_open(path, framework="pt") as weights:
            return sum(torch.Size(weights.get_slice(name).get_shape()).numel() for name in weights.keys())  # noqa: SIM118
    except SafetensorError as error:
        raise ModelError(
            f"{str(path)!r} must hold whole weights: {error}. Fetch or save it again."
        ) from error
