"""The training loop: batches, and how a model is trained on them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from dspy_diffusion_infill.engine.attention import attend_by_example
from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.training.trainer import MaskedDiffusionTrainer, Monitor
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


class _SavesAsAsked(TrainerCallback):
    """Trainer goes on at the pace that it finds in a checkpoint, whatever it is asked for now."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        state.save_steps = cast(int, args.save_steps)


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
        SettingsError: If `accumulation` is no multiple of the number of processes, or one process is to use
            several GPUs.
        InfillError: If a loss or a gradient is not finite; or if a checkpoint cannot be written.
    """
    check_gpus(use_cpu)
    on_cpu = use_cpu or not torch.accelerator.is_available()  # Trainer takes bf16 for a GPU's, if not told so
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
        bf16=fast_in_bf16(on_cpu),
        use_cpu=on_cpu,
        seed=seed,
        eval_strategy="no" if monitor is None else "steps",
        eval_steps=monitor_updates,
        eval_on_start=monitor is not None,
        save_steps=save_updates,
        save_total_limit=2,
        logging_steps=25,
        logging_nan_inf_filter=False,  # the trainer looks at every loss itself
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
    attend_by_example(model)
    evaluated = None if monitor is None else batches  # Trainer wants a data set; the monitor has its own
    trainer = MaskedDiffusionTrainer(
        model, arguments, train_dataset=batches, eval_dataset=evaluated, data_collator=only
    )
    trainer.add_callback(_SavesAsAsked())
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


def check_gpus(use_cpu: bool) -> None:
    """Refuse several GPUs in one process: Trainer would hand each a batch of its own, and count them as one.

    Raises:
        SettingsError: If this process, alone, sees more than one.
    """
    seen = 0 if use_cpu else torch.cuda.device_count()
    if seen > 1 and _num_processes() == 1:
        raise SettingsError(
            f"A process must train on one GPU; this one sees {seen}. Start it with accelerate launch, which "
            "starts one for each, or set CUDA_VISIBLE_DEVICES=0."
        )


def _num_processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))  # as torchrun and accelerate say it


def _own_share(accumulation: int) -> int:
    """Batches an update that this process takes."""
    processes = _num_processes()
    if accumulation % processes:
        raise SettingsError(
            f"The batches of an update must be a multiple of {processes}, the number of processes; "
            f"got {accumulation}."
        )
    return accumulation // processes


def only(items: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The batch that Trainer takes at a time."""
    (item,) = items
    return item
