"""The loops that `benchmarks.speed_train` times, ours and a plain one, and their model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PrinterCallback, TrainerCallback, TrainingArguments

from dspy_diffusion_infill.engine.attention import attend_by_example
from dspy_diffusion_infill.engine.vocabulary import Vocabulary
from dspy_diffusion_infill.training.loss import IGNORED
from dspy_diffusion_infill.training.train import Batches, only
from dspy_diffusion_infill.training.trainer import MaskedDiffusionTrainer

BATCH, NUM_BATCHES = 32, 4
"""Examples an update, and the batches that it is shared out over."""
MAX_TOKENS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Of the model; the defaults are those of the bar."""

    vocab_size: int = 32768
    hidden_size: int = 256
    num_layers: int = 6


class PlainTrainer(MaskedDiffusionTrainer):
    """Logits everywhere, and labels that are ignored; losses are normalised as ours, so that they compare."""

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Sum over the labelled positions, over the number of all of the update."""
        ids, attention_mask = inputs["input_ids"], inputs["attention_mask"]
        logits = model(input_ids=ids, attention_mask=attention_mask, use_cache=False).logits
        labels = inputs["labels"].flatten()
        total = cross_entropy(logits.flatten(0, 1).float(), labels, ignore_index=IGNORED, reduction="sum")
        return total / cast(Tensor, num_items_in_batch)


class Clock(TrainerCallback):
    """Times what a Trainer does, data included, its own construction left out."""

    seconds = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.seconds -= time.perf_counter()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self.seconds += time.perf_counter()


class Loop:
    """One of the two: a model, its optimizer, and the Trainer that takes its updates."""

    def __init__(
        self,
        trainer: type[MaskedDiffusionTrainer],
        model: nn.Module,
        folder: str,
        *,
        bf16: bool,
        use_cpu: bool = True,
    ) -> None:
        self.trainer = trainer
        self.model = model
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01, fused=True)
        self.arguments = TrainingArguments(
            output_dir=folder, max_steps=1, per_device_train_batch_size=1,
            gradient_accumulation_steps=NUM_BATCHES, use_cpu=use_cpu, bf16=bf16, report_to="none",
            save_strategy="no", logging_strategy="no", disable_tqdm=True, remove_unused_columns=False,
            dataloader_pin_memory=False,
        )  # fmt: skip

    def update(self, batches: Sequence[dict[str, Tensor]]) -> tuple[float, float]:
        """Seconds and loss of one update."""
        clock = Clock()
        trainer = self._trainer(batches)
        trainer.add_callback(clock)
        loss = trainer.train().training_loss
        return clock.seconds, loss

    def loss(self, batches: Sequence[dict[str, Tensor]]) -> float:
        """Of an update that is not taken; before the first that is, in the precision of the weights."""
        total = torch.stack([(batch["labels"] != IGNORED).sum() for batch in batches]).sum()
        compute = self._trainer(batches).compute_loss
        with torch.no_grad():
            return sum(float(compute(self.model, batch, num_items_in_batch=total)) for batch in batches)

    def _trainer(self, batches: Sequence[dict[str, Tensor]]) -> MaskedDiffusionTrainer:
        trainer = self.trainer(
            self.model,  # pyright: ignore[reportArgumentType]
            self.arguments,
            train_dataset=Batches(batches.__getitem__, len(batches)),
            data_collator=only,
            optimizers=(self.optimizer, None),
        )
        trainer.remove_callback(PrinterCallback)
        return trainer


def loops(vocabulary: Vocabulary, sizes: Sizes, folder: str, *, bf16: bool) -> tuple[Loop, Loop]:
    """The plain one and ours, with the same weights."""
    model = build(vocabulary, sizes)
    attend_by_example(model)
    return (
        Loop(PlainTrainer, build(vocabulary, sizes), folder, bf16=bf16),
        Loop(MaskedDiffusionTrainer, model, folder, bf16=bf16),
    )


def build(vocabulary: Vocabulary, sizes: Sizes) -> LlamaForCausalLM:
    """A LLaDA of these sizes with random weights, the same every time."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=sizes.vocab_size,
        hidden_size=sizes.hidden_size,
        intermediate_size=3 * sizes.hidden_size,
        num_hidden_layers=sizes.num_layers,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        bos_token_id=None,
        eos_token_id=vocabulary.padding_id,
        is_causal=False,  # pyright: ignore[reportCallIssue]
    )
    return LlamaForCausalLM(config)
