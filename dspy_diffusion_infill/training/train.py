"""The training loop: transformers' Trainer with the masked-diffusion loss."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler, SequentialSampler
from transformers import PreTrainedModel, Trainer, TrainingArguments

from dspy_diffusion_infill.errors import ModelError, SettingsError
from dspy_diffusion_infill.training.loss import IGNORED, masked_losses
from dspy_diffusion_infill.training.saving import writing
from dspy_diffusion_infill.training.work import last_checkpoint


class Batches(Dataset):
    """Batches made on demand from their number alone: a resumed run sees what an uninterrupted one would.

    Args:
        make: Number of the batch to one with `input_ids`, `labels` and `attention_mask`.
        num_batches: How many there are.
    """

    def __init__(self, make: Callable[[int], dict[str, Tensor]], num_batches: int) -> None:
        self.make = make
        self.num_batches = num_batches

    def __len__(self) -> int:
        """Number of batches."""
        return self.num_batches

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        """One batch."""
        if not 0 <= number < self.num_batches:
            raise IndexError(number)
        return self.make(number)


class Monitor(Protocol):
    """Looks at a model while it is trained."""

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """Measure; must leave the model as it was."""
        ...


class MaskedDiffusionTrainer(Trainer):
    """Trainer whose loss is the weighted mean over all masked tokens of an update.

    The weights are summed over gradient accumulation and processes before anything is divided by them;
    dividing by anything less would weigh small batches more.
    """

    shift = 0
    """How many places before a token its logits are read."""
    monitor: Monitor | None = None
    """Asked at the start, and every `eval_steps` updates."""

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Weighted mean cross-entropy of the masked tokens, in nats."""
        labels, weights = inputs["labels"], inputs.get("weights")
        losses = masked_losses(
            model,
            inputs["input_ids"],
            labels,
            inputs["attention_mask"],
            blind=inputs.get("blind"),
            shift=self.shift,
        )
        weighted = losses if weights is None else losses * weights[labels != IGNORED]
        total = num_items_in_batch if num_items_in_batch is not None else _total_weight(inputs)
        loss = weighted.sum() / total
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            loss = loss * self.accelerator.num_processes
        return (loss, {"losses": losses}) if return_outputs else loss

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> Tensor | None:
        # Trainer's own count takes the model for causal and leaves out the first label of every row.
        if not batch_samples:
            return None
        total = torch.stack([_total_weight(batch) for batch in batch_samples]).sum().to(device)
        return self.accelerator.gather(total).sum()  # pyright: ignore[reportAttributeAccessIssue]

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """What the monitor measures, logged and reported."""
        assert self.monitor is not None, "evaluation is asked for only with a monitor"
        found = self.monitor(cast(nn.Module, self.model))
        measured = {f"{metric_key_prefix}_{name}": value for name, value in found.items()}
        self.log(dict(measured))
        return measured

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        with writing(Path(cast(str, self.args.output_dir))):
            super()._save_checkpoint(model, trial)

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        # Trainer itself only warns, and goes on with weights that were not trained.
        tied = cast(PreTrainedModel, self.model).all_tied_weights_keys
        missing = set(load_result.missing_keys) - {*tied, *tied.values()}
        if odd := sorted({*missing, *load_result.unexpected_keys}):
            raise ModelError(
                "The checkpoint that training goes on from must hold this model's weights, and no others; "
                f"{odd[0]!r} and {len(odd) - 1} more do not fit. Remove the run's work folder to begin anew."
            )

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
    decay: bool = True,
    seed: int = 0,
    save_updates: int = 200,
    use_cpu: bool = False,
    accumulation: int = 1,
    shift: int = 0,
    gradient_checkpointing: bool = False,
    monitor: Monitor | None = None,
    monitor_updates: int = 100,
    report_to: str = "none",
) -> MaskedDiffusionTrainer:
    """Train a model in place, resuming from the last whole checkpoint in `output`.

    AdamW with betas .9 and .999, eps 1e-8, weight decay .01, clipping at 1.0, cosine decay (paper, Table 5).
    Two checkpoints are kept: while one is written, the other is whole.

    Args:
        model: Not causal. Modified.
        batches: `accumulation` per update, in order.
        output: Folder of the checkpoints.
        learning_rate: At the peak.
        warmup_updates: Linear warm-up.
        decay: Whether the learning rate then falls to zero.
        seed: Of dropout and the like; the noise is the batches' own.
        save_updates: Updates between checkpoints.
        use_cpu: Stay on the CPU even if there is a GPU.
        accumulation: Batches an update, over all processes: which process takes which changes nothing.
        shift: How many places before a token its logits are read.
        gradient_checkpointing: Make activations again for the gradient, instead of keeping them.
        monitor: Measures at the start, and every `monitor_updates`.
        monitor_updates: Updates between measurements.
        report_to: "none", or where Trainer reports, such as "tensorboard" or "wandb".

    Returns:
        The trainer, when it is done.

    Raises:
        SettingsError: If `accumulation` is no multiple of the number of processes.
    """
    arguments = TrainingArguments(
        output_dir=str(output),
        per_device_train_batch_size=1,
        gradient_accumulation_steps=_own_share(accumulation),
        max_steps=len(batches) // accumulation,
        learning_rate=learning_rate,
        lr_scheduler_type="cosine" if decay else "constant_with_warmup",
        warmup_steps=warmup_updates,
        weight_decay=0.01,
        max_grad_norm=1.0,
        optim="adamw_torch_fused",
        bf16=fast_in_bf16(use_cpu),
        use_cpu=use_cpu,
        seed=seed,
        eval_strategy="no" if monitor is None else "steps",
        eval_steps=monitor_updates,
        eval_on_start=monitor is not None,
        save_steps=save_updates,
        save_total_limit=2,
        logging_steps=25,
        report_to=report_to,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        disable_tqdm=None,
    )
    if gradient_checkpointing:
        # The second is its name in older versions of transformers.
        enable = (
            getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        )
        enable({"use_reentrant": False})
    evaluated = None if monitor is None else batches  # Trainer wants a data set; the monitor has its own
    trainer = MaskedDiffusionTrainer(
        model, arguments, train_dataset=batches, eval_dataset=evaluated, data_collator=_only
    )
    trainer.shift, trainer.monitor = shift, monitor
    trainer.train(resume_from_checkpoint=last_checkpoint(output))
    return trainer


def fast_in_bf16(use_cpu: bool) -> bool:
    """Whether to compute in bfloat16, with float32 weights.

    A CPU without AVX-512 emulates bfloat16 products: an update then takes twenty times as long.
    """
    if torch.cuda.is_available() and not use_cpu:
        return True
    return torch.backends.cpu.get_cpu_capability().startswith("AVX512")


def _own_share(accumulation: int) -> int:
    """Batches an update that this process takes."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))  # as torchrun and accelerate say it
    if accumulation % processes:
        raise SettingsError(
            f"The batches of an update must be a multiple of {processes}, the number of processes; "
            f"got {accumulation}."
        )
    return accumulation // processes


def _total_weight(batch: dict[str, Tensor]) -> Tensor:
    return batch["weights"].sum() if "weights" in batch else (batch["labels"] != IGNORED).sum()


def _only(items: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return items[0]
