"""Rotary positions in float32, whatever the precision of the rest.

LLaDA was trained so (`rope_full_precision`); transformers rounds the sines and cosines of the angles to the
precision of the weights, which in bfloat16 moves the logits.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel

from dspy_diffusion_infill.engine.attention import attend_by_example


def rotate_in_float32(network: PreTrainedModel) -> None:
    """Make a Llama rotate queries and keys in float32; what comes out has the weights' precision again.

    Args:
        network: A transformers model with `model.rotary_emb`. Modified.
    """
    network.set_attn_implementation("sdpa")  # "eager" refuses queries that are more precise than values
    attend_by_example(network)
    network.model.rotary_emb.register_forward_pre_hook(_in_float32, with_kwargs=True)


def _in_float32(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
    """Sines and cosines take the precision of the first argument, which serves nothing else."""
    hidden, *rest = args
    return (hidden.new_empty(0, dtype=torch.float32), *rest), kwargs
