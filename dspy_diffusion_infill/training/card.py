"""The README.md of a fine-tuned checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from dspy_diffusion_infill.training.mixing import Counts
from dspy_diffusion_infill.training.settings import Settings

_CARD = """---
library_name: transformers
tags: [diffusion-language-model, prompt-infilling, dspy]
---

# A masked diffusion LM that infills prompts

Fine-tuned from `{source}` by `diffusion-infill train` (dspy-diffusion-infill), with masks on {stages}
(arXiv:2604.03677), on {data}{counts}.

    from dspy_diffusion_infill import DiffusionInfill
    DiffusionInfill(metric, infiller="this folder or hub id")

In plain transformers it is an `AutoModelForCausalLM` whose config says `is_causal: false`{shifted}.
{losses}
| setting | value |
|---|---|
{settings}
"""

_LOSSES = """
Losses of held-out examples, in nats per masked token, and perplexities per token, before the first stage and
after the last:

| | before | after |
|---|---|---|
{}
"""
_SHIFTED = "; a token's logits are read at the place before it"
_STAGES = {"fs": "the full sequence", "ro": "responses only"}
_MEASURES = ("prompt_loss", "response_loss", "prompt_perplexity", "response_perplexity")


def model_card(
    source: str,
    data: Sequence[str],
    settings: Settings,
    counts: Counts | None,
    log: Sequence[Mapping[str, Any]],
    shift: int = 0,
) -> str:
    """Say what a checkpoint is made from, and how it does.

    Args:
        source: The checkpoint it started from.
        data: What it was trained on.
        settings: Of the run.
        counts: Of the data, if they are known.
        log: Trainer's logs of all stages, in order.
        shift: How many places before a token its logits are read.
    """
    rows = _rows(log)
    return _CARD.format(
        source=source,
        stages=", then on ".join(_STAGES[stage] for stage in settings.stages),
        data=", ".join(f"`{one}`" for one in data),
        counts=f" ({counts})" if counts else "",
        shifted=_SHIFTED if shift else "",
        losses=_LOSSES.format("\n".join(rows)) if rows else "",
        settings="\n".join(f"| {name} | {value} |" for name, value in _told(settings).items()),
    )


def _told(settings: Settings) -> dict[str, Any]:
    return asdict(settings) | {"warmup_updates": f"{settings.warmup_updates}, at most a quarter of a stage"}


def _rows(log: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = []
    for name in _MEASURES:
        found = [entry[f"eval_{name}"] for entry in log if f"eval_{name}" in entry]
        if found:
            rows.append(f"| {name.replace('_', ' ')} | {found[0]:.3f} | {found[-1]:.3f} |")
    return rows
