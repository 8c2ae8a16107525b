"""How fast LLaDA-8B's shape is fine-tuned with LoRA on a GPU: tokens, arithmetic, memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn
from transformers import LlamaForCausalLM

from benchmarks.roofline import LLADA_8B, measure_peaks
from benchmarks.training_loops import BATCH, NUM_BATCHES, Loop
from dspy_diffusion_infill.engine.llada import llama_config
from dspy_diffusion_infill.engine.rotation import rotate_in_float32
from dspy_diffusion_infill.engine.vocabulary import Vocabulary
from dspy_diffusion_infill.training.data import Example
from dspy_diffusion_infill.training.loss import IGNORED
from dspy_diffusion_infill.training.masking import Objective
from dspy_diffusion_infill.training.packing import Noised
from dspy_diffusion_infill.training.saving import adapted
from dspy_diffusion_infill.training.settings import Settings
from dspy_diffusion_infill.training.trainer import MaskedDiffusionTrainer
from dspy_diffusion_infill.training.updates import Updates

STAGES: tuple[Objective, ...] = ("fs", "ro")
UPDATES = 3
"""Timed of each stage, if there are examples enough, after one that warms up."""


@dataclass(frozen=True, slots=True)
class GpuRow:
    """Updates of one stage."""

    shape: str
    objective: Objective
    tokens_per_s: float
    mfu: float
    """What `flops` counts, over what a large bfloat16 product does in the same time on this device."""
    peak_gib: float
    """Of the device's memory, weights and their optimizer among it."""


def measure_gpu(examples: Sequence[Example], vocabulary: Vocabulary, *, seed: int) -> list[GpuRow]:
    """As `diffusion-infill train --lora 16` does it: frozen float32 weights, products in bfloat16."""
    peak = measure_peaks().flops_per_s
    model = shaped(LLADA_8B, "cuda")
    with TemporaryDirectory() as folder:
        loop = Loop(MaskedDiffusionTrainer, model, folder, bf16=True, use_cpu=False)
        return [measure(loop, examples, vocabulary, stage, peak, seed) for stage in STAGES]


def shaped(published: Mapping[str, Any], device: str) -> nn.Module:
    """A LLaDA of a published shape, with random weights and adapters of rank 16."""
    torch.manual_seed(0)
    with torch.device(device):
        network = LlamaForCausalLM(llama_config(dict(published)))
        rotate_in_float32(network)
        settings = Settings(learning_rate=1e-4, batch=BATCH, num_batches=NUM_BATCHES, max_tokens=1, lora=16)
        return adapted(network, settings)


def measure(
    loop: Loop,
    examples: Sequence[Example],
    vocabulary: Vocabulary,
    objective: Objective,
    peak: float,
    seed: int,
) -> GpuRow:
    """The updates of one stage, batches made beforehand."""
    updates = Updates(examples, vocabulary, objective, batch=BATCH, num_batches=NUM_BATCHES, seed=seed)
    seconds = tokens = arithmetic = 0.0
    for number in range(min(UPDATES + 1, len(examples) // BATCH)):
        batches = [updates(number * NUM_BATCHES + part) for part in range(NUM_BATCHES)]
        if number == 1 and torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        spent, _ = loop.update(batches)
        if number:
            seconds += spent
            tokens += sum(len(one.ids) for one in updates.noised(number))
            arithmetic += flops(loop.model.config, updates.noised(number))
    memory = torch.cuda.max_memory_allocated() / 2**30
    return GpuRow("LLaDA-8B", objective, tokens / seconds, arithmetic / seconds / peak, memory)


def flops(config: Any, examples: Sequence[Noised]) -> float:
    """What an update needs: products with weights forward and, for activations alone, backward; attention.

    The last layer is counted where it is read. Adapters, less than a hundredth, are left out.

    Args:
        config: Of the network, as Llama's.
        examples: Of the update.
    """
    width, shared = config.hidden_size, config.num_key_value_heads * config.head_dim
    keys_and_values = 2 * width * shared
    rest = 2 * width * config.num_attention_heads * config.head_dim + 3 * width * config.intermediate_size
    layers = config.num_hidden_layers
    total = 0.0
    for one in examples:
        length, read = len(one.ids), int((one.labels != IGNORED).sum())
        products = length * (layers * keys_and_values + (layers - 1) * rest)
        products += read * (rest + width * config.vocab_size)
        pairs = length * (length * (layers - 1) + read)
        # A product with a weight is 2 a parameter, made once each way; attention is two products, and twice
        # as much backward.
        total += 2 * 2 * products + 3 * 4 * pairs * config.num_attention_heads * config.head_dim
    return total
