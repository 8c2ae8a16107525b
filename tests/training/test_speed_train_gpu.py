"""The GPU part of the training benchmark: its counts, and that it runs, on a CPU at a size of seconds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.speed_train import read_examples
from benchmarks.speed_train_gpu import flops, measure, shaped
from benchmarks.training_loops import BATCH, Loop
from dspy_diffusion_infill.training.loss import IGNORED, masked_losses
from dspy_diffusion_infill.training.packing import Noised, lay_out
from dspy_diffusion_infill.training.trainer import MaskedDiffusionTrainer
from tests.training.conftest import write_rows

SHAPE = {
    "d_model": 16, "mlp_hidden_size": 24, "n_layers": 3, "n_heads": 4, "n_kv_heads": 2, "embedding_size": 400,
    "max_sequence_length": 1024, "rms_norm_eps": 1e-5, "rope_theta": 5e5,
}  # fmt: skip


def noised(length: int, masked: int) -> Noised:
    labels = torch.full((length,), IGNORED)
    labels[:masked] = 7
    return Noised(torch.full((length,), 7), labels)


def test_products_with_weights_are_those_that_torch_counts():
    """Beside them torch counts the adapters, and leaves out attention."""
    model = shaped(SHAPE, "cpu")
    examples = [noised(9, 4), noised(5, 1)]
    batch = lay_out([examples], 0)
    with FlopCounterMode(display=False) as counted:
        masked_losses(model, batch["input_ids"], batch["labels"], batch["attention_mask"])
    counts = counted.get_flop_counts()["Global"].items()
    total = sum(number for name, number in counts if "mm" in str(name))
    whole, last = 14, 5
    by_adapters = {"q": 16 + 16, "k": 16 + 8, "v": 16 + 8, "o": 16 + 16, "gate": 40, "up": 40, "down": 40}
    tokens = {name: 2 * whole + (whole if name in "kv" else last) for name in by_adapters}
    adapters = sum(2 * 16 * size * tokens[name] for name, size in by_adapters.items())
    pairs = 2 * (9 * 9 + 5 * 5) + 9 * 4 + 5 * 1
    assert flops(model.config, examples) == 2 * (total - adapters) + 12 * pairs * 16


@pytest.mark.usefixtures("own_cache")
def test_updates_are_timed_and_train_the_adapters_alone(tmp_path: Path):
    rows = [{"prompt": "word " * (n % 7 + 2), "response": "reply " * (n % 5 + 1)} for n in range(2 * BATCH)]
    examples, vocabulary = read_examples(write_rows(tmp_path / "data.jsonl", rows), 400)
    model = shaped(SHAPE, "cpu")
    before = {name: value.clone() for name, value in model.named_parameters()}
    found = measure(
        Loop(MaskedDiffusionTrainer, model, str(tmp_path), bf16=False),
        examples,
        vocabulary,
        "fs",
        peak=1e9,
        seed=0,
    )
    assert found.tokens_per_s > 0
    assert found.mfu > 0
    changed = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert changed
    assert all("lora" in name for name in changed)
