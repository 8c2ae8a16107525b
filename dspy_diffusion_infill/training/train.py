"""The training loop: transformers' Trainer with the masked-diffusion loss."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler, SequentialSampler
from transformers import PreTrainedModel, Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from dspy_diffusion_infill.training.loss import masked_losses


class Batches(Dataset):
    """Batches made on demand from their number alone: a resumed run sees what an uninterrupted one would.

    Args:
        make: Number of the update to a batch with `input_ids`, `labels` and `attention_mask`.
        num_updates: How many there are.
    """

    def __init__(self, make: Callable[[int], dict[str, Tensor]], num_updates: int) -> None:
        self.make = make
        self.num_updates = num_updates

    def __len__(self) -> int:
        """Number of batches."""
        return self.num_updates

    def __getitem__(self, update: int) -> dict[str, Tensor]:
        """The batch of one update."""
        if not 0 <= update < self.num_updates:
            raise IndexError(update)
        return self.make(update)


class MaskedDiffusionTrainer(Trainer):
    """Trainer whose loss is the mean over all masked tokens of an update.

    The count spans gradient accumulation and processes: Trainer counts the labels that are not -100 and hands
    the sum over; dividing by anything less would weigh small batches more.
    """

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Mean cross-entropy of the masked tokens, in nats."""
        losses = masked_losses(model, inputs["input_ids"], inputs["labels"], inputs["attention_mask"])
        count = num_items_in_batch if num_items_in_batch is not None else len(losses)
        loss = losses.sum() / count
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            loss = loss * self.accelerator.num_processes
        return (loss, {"losses": losses}) if return_outputs else loss

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler:
        # The order is part of the recipe: batches know their own seeds.
        batches = self.train_dataset if train_dataset is None else train_dataset
        return SequentialSampler(batches)  # pyright: ignore[reportArgumentType]


def train(
    model: PreTrainedModel,
    batches: Batches,
    output: Path,
    *,
    learning_rate: float,
    warmup_updates: int,
    seed: int = 0,
    save_updates: int = 200,
    use_cpu: bool = False,
) -> None:
    """Train a model in place, one batch an update, resuming from the last checkpoint in `output`.

    AdamW with betas .9 and .999, eps 1e-8, weight decay .01, clipping at 1.0, cosine decay (paper, Table 5).

    Args:
        model: Not causal. Modified.
        batches: One per update, in order.
        output: Folder of the checkpoints.
        learning_rate: At the peak.
        warmup_updates: Linear warm-up.
        seed: Of dropout and the like; the noise is the batches' own.
        save_updates: Updates between checkpoints.
        use_cpu: Stay on the CPU even if there is a GPU.
    """
    arguments = TrainingArguments(
        output_dir=str(output),
        per_device_train_batch_size=1,
        max_steps=len(batches),
        learning_rate=learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=warmup_updates,
        weight_decay=0.01,
        max_grad_norm=1.0,
        optim="adamw_torch_fused",
        bf16=fast_in_bf16(use_cpu),
        use_cpu=use_cpu,
        seed=seed,
        save_steps=save_updates,
        save_total_limit=1,
        logging_steps=25,
        report_to="none",
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        disable_tqdm=None,
    )
    trainer = MaskedDiffusionTrainer(model, arguments, train_dataset=batches, data_collator=_only)
    last = get_last_checkpoint(str(output)) if output.is_dir() else None
    trainer.train(resume_from_checkpoint=last)


def fast_in_bf16(use_cpu: bool) -> bool:
    """Whether to compute in bfloat16, with float32 weights.

    A CPU without AVX-512 emulates bfloat16 products: an update then takes twenty times as long.
    """
    if torch.cuda.is_available() and not use_cpu:
        return True
    return torch.backends.cpu.get_cpu_capability().startswith("AVX512")


def _only(items: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return items[0]
