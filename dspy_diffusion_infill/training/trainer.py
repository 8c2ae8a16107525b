"""transformers' Trainer with the masked-diffusion loss."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler, SequentialSampler
from transformers import PreTrainedModel, Trainer

from dspy_diffusion_infill.errors import InfillError, ModelError
from dspy_diffusion_infill.training.loss import IGNORED, masked_losses
from dspy_diffusion_infill.training.saving import TORCH_SAYS
from dspy_diffusion_infill.training.work import writing


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

    def training_step(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """The gradients of a batch; its loss."""
        loss = super().training_step(model, inputs, num_items_in_batch)
        _check_finite("loss", float(loss), self.state.global_step + 1)
        return loss

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        # Before the optimizer takes a step: one that is no number makes every weight no number.
        norm: Any = super()._get_grad_norm(model, grad_norm=grad_norm)
        _check_finite("gradient norm", float(norm), self.state.global_step + 1)
        return norm

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
        for name, value in found.items():
            _check_finite(f"held-out {name}", value, self.state.global_step)
        # which notes that it is done: at the end of an epoch it would be asked for again
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, measured)
        return measured

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        with writing(Path(cast(str, self.args.output_dir)), *TORCH_SAYS):
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


def _total_weight(batch: dict[str, Tensor]) -> Tensor:
    return batch["weights"].sum() if "weights" in batch else (batch["labels"] != IGNORED).sum()


def _check_finite(what: str, value: float, update: int) -> None:
    """End a run that diverged before anything of it is kept as if it were a model."""
    if not math.isfinite(value):
        raise InfillError(
            f"The {what} of update {update} must be finite; got {value}: training diverged. Begin anew with "
            "a lower learning_rate: name another output, or remove the run's work folder."
        )
