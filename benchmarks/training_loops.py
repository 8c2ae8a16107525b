"""The loops that `benchmarks.speed_train` times: ours, and a plain one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import PrinterCallback, TrainerCallback, TrainingArguments

from dspy_diffusion_infill.training.loss import IGNORED
from dspy_diffusion_infill.training.train import Batches
from dspy_diffusion_infill.training.trainer import MaskedDiffusionTrainer

BATCH, NUM_BATCHES = 32, 4
"""Examples an update, and the batches that it is shared out over."""


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
        trainer = self.trainer(
            self.model,  # pyright: ignore[reportArgumentType]
            self.arguments,
            train_dataset=Batches(batches.__getitem__, len(batches)),
            data_collator=lambda items: items[0],
            optimizers=(self.optimizer, None),
            callbacks=[clock],
        )
        trainer.remove_callback(PrinterCallback)
        loss = trainer.train().training_loss
        return clock.seconds, loss
