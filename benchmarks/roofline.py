"""What a GPU could do at best, beside what it did: FLOPs and bytes of every forward pass are counted."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from dspy_diffusion_infill.engine.decoder import BidirectionalDecoder
from dspy_diffusion_infill.engine.keyvalues import KeyValues
from dspy_diffusion_infill.engine.llada import llama_config
from dspy_diffusion_infill.engine.vocabulary import Vocabulary

LLADA_8B = {
    "d_model": 4096,
    "mlp_hidden_size": 12288,
    "n_layers": 32,
    "n_heads": 32,
    "n_kv_heads": 32,
    "embedding_size": 126464,
    "max_sequence_length": 4096,
    "rms_norm_eps": 1e-5,
    "rope_theta": 5e5,
}


@dataclass(frozen=True, slots=True)
class Peaks:
    """Measured on the device, in bfloat16."""

    flops_per_s: float
    bytes_per_s: float


class Counted(BidirectionalDecoder):
    """A decoder that counts: for each piece of work, (FLOPs, bytes that must be read).

    A weight is read once a pass, keys and values once a row; activations are taken to stay in cache.
    """

    def __init__(self, network: LlamaForCausalLM, vocabulary: Vocabulary, context_length: int) -> None:
        super().__init__(network, vocabulary, "counted", context_length)
        self.work: list[tuple[float, float]] = []

    def logits(self, ids: Tensor, attention_mask: Tensor, wanted: Tensor) -> Tensor:
        """As the decoder's."""
        self._count_layers(*ids.shape, num_keys=ids.shape[1])
        return super().logits(ids, attention_mask, wanted)

    def encode(self, ids: Tensor, positions: Tensor, visible: Tensor | None, memory: KeyValues) -> Tensor:
        """As the decoder's."""
        self._count_layers(*ids.shape, num_keys=memory.start + ids.shape[1])
        return super().encode(ids, positions, visible, memory)

    def score(self, hidden: Tensor) -> Tensor:
        """As the decoder's."""
        head = self.network.lm_head.weight
        num_places = hidden.numel() // hidden.shape[-1]
        self.work.append((2.0 * num_places * head.numel(), head.numel() * head.element_size()))
        return super().score(hidden)

    def _count_layers(self, num_rows: int, num_places: int, num_keys: int) -> None:
        config = self.network.config
        size = self.network.lm_head.weight.element_size()
        num_weights = sum(weight.numel() for weight in self.network.model.layers.parameters())
        attention = 4.0 * num_places * num_keys * config.num_attention_heads * config.head_dim
        kept = 2 * num_keys * config.num_key_value_heads * config.head_dim
        layers = config.num_hidden_layers
        self.work.append(
            (
                num_rows * (2.0 * num_places * num_weights + layers * attention),
                size * (num_weights + num_rows * layers * kept),
            )
        )

    def least_seconds(self, peaks: Peaks) -> float:
        """The roofline: each piece of work takes at least its FLOPs, and at least its bytes."""
        return sum(max(flops / peaks.flops_per_s, moved / peaks.bytes_per_s) for flops, moved in self.work)


def random_llada_8b(vocabulary: Vocabulary) -> Counted:
    """LLaDA-8B's true shape with random weights, on the GPU."""
    config = llama_config(LLADA_8B)
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("cuda"):
            network = LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(default)
    return Counted(network, vocabulary, config.max_position_embeddings)


def measure_peaks() -> Peaks:
    """A large matrix product, and a copy of 2 GB."""
    square = torch.randn(8192, 8192, dtype=torch.bfloat16, device="cuda")
    block = torch.empty(2**31, dtype=torch.uint8, device="cuda")
    product_s = best_seconds(lambda: square @ square)
    copy_s = best_seconds(block.clone)
    return Peaks(2 * 8192**3 / product_s, 2 * block.numel() / copy_s)


def best_seconds(run: Callable[[], object], repeats: int = 5) -> float:
    """Of several runs after a first one."""
    run()
    return min(seconds_of(run) for _ in range(repeats))


def seconds_of(run: Callable[[], object]) -> float:
    """Of one run, with the GPU's work done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    started = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started
