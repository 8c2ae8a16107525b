"""What the engine asks of a masked diffusion LM, and how one is loaded."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypedDict, runtime_checkable

import torch
from torch import Tensor
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from dspy_diffusion_infill.engine import checkpoint, dream, llada, masked_lm
from dspy_diffusion_infill.engine.placement import (
    Bits,
    Dtype,
    Placement,
    cap_memory,
    check_device,
    choose_placement,
)
from dspy_diffusion_infill.engine.vocabulary import Vocabulary
from dspy_diffusion_infill.errors import ModelError


@runtime_checkable
class MaskPredictor(Protocol):
    """Scores every token for the masked positions of a batch of canvases, from both sides.

    Obligation: a row's logits depend on that row alone, wherever it stands in a batch and however it is
    padded (up to rounding).
    """

    @property
    def name(self) -> str:
        """Identifies the weights and the precision they are computed in."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the weights are, and where `logits` wants its arguments."""
        ...

    @property
    def context_length(self) -> int:
        """The most tokens a row may have."""
        ...

    @property
    def mask_token_id(self) -> int:
        """The absorbing state."""
        ...

    @property
    def banned_ids(self) -> frozenset[int]:
        """Ids that stand for no text; never committed inside a window."""
        ...

    def logits(self, ids: Tensor, attention_mask: Tensor, wanted: Tensor) -> Tensor:
        """Score the vocabulary at the wanted positions only.

        Args:
            ids: Token ids, [rows, length], right-padded.
            attention_mask: bool, [rows, length]; False on padding.
            wanted: bool, [rows, length]; True where logits are wanted.

        Returns:
            float32, [number of wanted positions, vocabulary], rows first, then positions from left to right.
        """
        ...


@runtime_checkable
class TextModel(MaskPredictor, Protocol):
    """A mask predictor that knows how text becomes token ids."""

    @property
    def vocabulary(self) -> Vocabulary:
        """Tokenizer and chat format of the checkpoint."""
        ...


class ToyModel:
    """A mask predictor with a planted answer, for tests.

    At position i it prefers `answer[i]`; the position it is surest of is not the first, nor are the others in
    reading order, so that a sampler that ignores confidence is found out.

    Args:
        answer: Token ids, [length]; rows may be shorter, not longer.
        vocab_size: Ids are 0 to `vocab_size` - 1.
        mask_token_id: The absorbing state.

    Example:
        >>> toy = ToyModel(answer=torch.tensor([5, 6, 7]), vocab_size=9, mask_token_id=8)
        >>> canvas = torch.tensor([[5, 8, 8]])
        >>> toy.logits(canvas, canvas >= 0, canvas == 8).argmax(-1).tolist()
        [6, 7]
    """

    name = "toy"
    device = torch.device("cpu")

    def __init__(self, answer: Tensor, vocab_size: int, mask_token_id: int) -> None:
        self.answer = answer
        self.context_length = len(answer)
        self.vocab_size = vocab_size
        self.mask_token_id = mask_token_id
        self.banned_ids = frozenset({mask_token_id})

    def logits(self, ids: Tensor, attention_mask: Tensor, wanted: Tensor) -> Tensor:
        """One peak a position, its height a scrambled function of the position."""
        position = wanted.nonzero()[:, 1]
        height = 2.0 + (position * 7 + 3) % 11 / 5
        return torch.zeros(len(position), self.vocab_size).scatter_(
            1, self.answer[position, None], height[:, None]
        )


ILLADA = "ILLaDAForCausalLM"
"""The class that iLLaDA's configs name: a Llama, run without its causal mask."""
_loaded: weakref.WeakValueDictionary[tuple[str, Placement], TextModel] = weakref.WeakValueDictionary()
_loading = threading.Lock()


class Loading(TypedDict, total=False):
    """The settings of `load`, where they are passed on."""

    device: str
    dtype: Dtype
    revision: str | None
    device_map: str | None
    bits: Bits | None
    memory_gb: float | None


def load(
    source: str,
    device: str = "auto",
    dtype: Dtype = "auto",
    revision: str | None = None,
    *,
    device_map: str | None = None,
    bits: Bits | None = None,
    memory_gb: float | None = None,
) -> TextModel:
    """Load a masked diffusion LM.

    Weights already in memory (same files, placement and precision) are shared. Remote code is never run.

    Args:
        source: "embedded", a folder, or a hub id such as "GSAI-ML/LLaDA-8B-Instruct".
        device: A torch device, or "auto": CUDA, then MPS, then CPU.
        dtype: Precision of the computation; "auto" is float32 on CPU, bfloat16 elsewhere.
        revision: Branch, tag or commit on the hub.
        device_map: "auto" spreads the layers over all GPUs (accelerate); None keeps them on `device`.
        bits: 4 or 8 for weights of so many bits (bitsandbytes): LLaDA-8B then fits a card of 24 GB.
        memory_gb: The most that this process may take of the GPU, so that another model fits beside it.

    Raises:
        ModelError: If there is no such checkpoint, it is broken, or its architecture is not supported.
        SettingsError: If a setting is not known, or what it needs is not here.
        MissingExtraError: If `device_map` is set without accelerate.
    """
    placement = choose_placement(device, dtype, device_map, bits)
    check_device(placement.device)
    if memory_gb is not None:
        cap_memory(placement.device, memory_gb)
    folder = checkpoint.find_folder(source, revision)
    family = _family(checkpoint.read_config(folder))
    label = folder.resolve().name if Path(source).is_dir() else source
    name = f"{label}@{checkpoint.fingerprint(folder)}:{placement}"
    with _loading:
        model = _loaded.get((name, placement))
        if model is None:
            model = _loaded[name, placement] = family(folder, name=name, placement=placement)
        return model


def _family(config: dict[str, Any]) -> Callable[..., TextModel]:
    """Which module loads this architecture."""
    found = config.get("model_type")
    bidirectional = config.get("is_causal") is False
    if (
        found == "llada"
        or ILLADA in (config.get("architectures") or ())
        or (found == "llama" and bidirectional)
    ):
        return llada.load
    if found == "Dream" or (found == "qwen2" and bidirectional):
        return dream.load
    if found in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        return masked_lm.load
    why = ' without "is_causal": false, a causal model' if found in ("llama", "qwen2") else ""
    raise ModelError(
        "model_type must be 'llada', 'Dream', 'llama' or 'qwen2' with \"is_causal\": false, or a masked LM; "
        f"config.json says {found!r}{why}. Only masked diffusion LMs can infill."
    )
