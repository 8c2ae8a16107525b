"""How a model is fine-tuned; the defaults are the paper's."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

from transformers.integrations.integration_utils import (
    INTEGRATION_TO_CALLBACK,
    get_available_reporting_integrations,
)

from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.training.data import Weighting
from dspy_diffusion_infill.training.masking import Objective
from dspy_diffusion_infill.training.start import Family, Start

TABLE_5: dict[Family, tuple[float, int, int]] = {"llada": (1e-5, 32, 32), "dream": (2e-6, 128, 64)}
"""Learning rate, examples an update, batches an update.

Source: arXiv:2604.03677, Table 5: batch 1 accumulated 32 times (LLaDA), 2 accumulated 64 times (Dream), taken
for one device, since the paper does not say how many there were.
"""

EPOCHS = {"fs": 8.0, "ro": 4.0}
"""Source: arXiv:2604.03677, Table 5."""

WITHOUT_EFFECT = frozenset({"use_cpu", "save_updates", "report_to"})
"""Settings that may be changed amid a run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Of one run; `defaults` gives those of a model's family."""

    learning_rate: float
    """At the peak of a linear warm-up and cosine decay, in each stage."""
    batch: int
    """Examples an update, over all processes."""
    num_batches: int
    """Batches that an update is shared out over: processes take turns, the rest is gradient accumulation."""
    max_tokens: int
    """Longer examples are cut."""
    stages: tuple[Objective, ...] = ("fs", "ro")
    epochs: float | None = None
    """Of each stage; None: 8 of full-sequence masking, 4 of response-only masking."""
    updates: int | None = None
    """Of each stage, in place of epochs."""
    warmup_updates: int = 500
    """At most a quarter of a stage; the paper's stages are long."""
    mix: float = 0.0
    """Share of a stage's examples that are masked by the other objective."""
    weighting: Weighting = "mean"
    stratify: bool = False
    """Spread the noise levels of an update evenly."""
    lora: int = 0
    """Rank of LoRA adapters on every linear layer but the head, merged in the end; 0 trains all weights."""
    dora: bool = False
    """Train the adapters' magnitudes apart from their directions."""
    gradient_checkpointing: bool = False
    held_out: int = 64
    """Examples that are not trained on, to measure losses with."""
    monitor_updates: int = 100
    save_updates: int = 200
    seed: int = 0
    use_cpu: bool = False
    report_to: str = "none"

    def __post_init__(self) -> None:
        known = ("fs", "ro")
        if not self.stages or not set(self.stages) <= set(known):
            raise SettingsError(f"stages must be some of {', '.join(known)}; got {','.join(self.stages)!r}.")
        if self.weighting not in get_args(Weighting):
            raise SettingsError(f"weighting must be 'mean' or 'inverse_t'; got {self.weighting!r}.")
        if not 0 <= self.mix < 1:
            raise SettingsError(f"mix must be at least 0 and below 1; got {self.mix}.")
        if self.batch < 1:
            raise SettingsError(f"batch must be at least 1; got {self.batch}.")
        if not 1 <= self.num_batches <= self.batch:
            raise SettingsError(
                f"num_batches must be between 1 and batch, {self.batch}; got {self.num_batches}. "
                "Every batch holds at least one example."
            )
        if self.dora and not self.lora:
            raise SettingsError("dora must go with lora, the rank of its adapters; got lora=0.")
        self._check_numbers()
        check_report(self.report_to)

    def _check_numbers(self) -> None:
        for name in ("learning_rate", "max_tokens", "epochs", "updates", "monitor_updates", "save_updates"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise SettingsError(f"{name} must be above 0 and finite; got {value}.")
        for name in ("warmup_updates", "lora", "held_out"):
            if getattr(self, name) < 0:
                raise SettingsError(f"{name} must be at least 0; got {getattr(self, name)}.")
        if not 0 <= self.seed < 2**32:
            raise SettingsError(f"seed must be at least 0 and below 2^32; got {self.seed}.")

    def num_updates(self, stage: Objective, num_examples: int) -> int:
        """Updates of a stage.

        Example:
            >>> settings = Settings(learning_rate=1e-5, batch=32, num_batches=32, max_tokens=4096)
            >>> settings.num_updates("fs", 95_000)
            23750
        """
        epochs = EPOCHS[stage] if self.epochs is None else self.epochs
        return self.updates or math.ceil(epochs * num_examples / self.batch)


def check_report(report_to: str) -> None:
    """Refuse to report to what is not installed."""
    if report_to in ("none", "all"):
        return
    known = sorted({*get_available_reporting_integrations()} & {*INTEGRATION_TO_CALLBACK})
    if report_to not in known:
        raise SettingsError(
            f"report_to must be none, all, or one that is installed ({', '.join(known) or 'none is'}); "
            f"got {report_to!r}. Install it, or leave this out."
        )


def defaults(start: Start) -> Settings:
    """The paper's settings for a model's family; examples as long as the model's context."""
    learning_rate, batch, num_batches = TABLE_5[start.family]
    return Settings(
        learning_rate=learning_rate, batch=batch, num_batches=num_batches, max_tokens=start.context_length
    )
