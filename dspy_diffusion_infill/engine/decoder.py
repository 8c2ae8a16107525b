"""A decoder-only transformer run without its causal mask: the body of LLaDA and Dream."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from dspy_diffusion_infill.engine.checkpoint import reading, weight_files
from dspy_diffusion_infill.engine.keyvalues import KeyValues
from dspy_diffusion_infill.engine.placement import Placement
from dspy_diffusion_infill.engine.vocabulary import Vocabulary
from dspy_diffusion_infill.errors import ModelError


class BidirectionalDecoder:
    """A mask predictor made of a transformers causal-LM class whose config says `is_causal=False`.

    Args:
        network: The transformers model, with `model` and `lm_head`. Set to evaluation, gradients off.
        vocabulary: Tokenizer and chat format.
        name: Identifies weights and precision.
        context_length: The longest sequence the model was made for, in tokens.
        shift: How many places before a token its logits are read; 0, or 1 for a model that was adapted from
            predicting the next token.
        folder: Of the checkpoint; None for a model made in memory.
    """

    def __init__(
        self,
        network: PreTrainedModel,
        vocabulary: Vocabulary,
        name: str,
        context_length: int,
        shift: int = 0,
        folder: Path | None = None,
    ) -> None:
        self.network = network.eval().requires_grad_(False)
        self.vocabulary = vocabulary
        self.name = name
        self.context_length = context_length
        self.shift = shift
        self.folder = folder

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.network.device

    @property
    def mask_token_id(self) -> int:
        """The absorbing state."""
        return self.vocabulary.mask_token_id

    @property
    def banned_ids(self) -> frozenset[int]:
        """Ids that stand for no text."""
        return self.vocabulary.banned_ids

    def logits(self, ids: Tensor, attention_mask: Tensor, wanted: Tensor) -> Tensor:
        """Score the vocabulary at the wanted positions; the head runs on no other."""
        # A mask tensor, even one that masks nothing, keeps attention from its fastest kernel.
        padding = None if attention_mask.all() else attention_mask
        hidden = self.network.model(input_ids=ids, attention_mask=padding, use_cache=False).last_hidden_state
        rows, positions = wanted.nonzero(as_tuple=True)
        return self.score(hidden.to(ids.device)[rows, (positions - self.shift).clamp(min=0)])

    def encode(self, ids: Tensor, positions: Tensor, visible: Tensor | None, memory: KeyValues) -> Tensor:
        """Hidden states of some places; see `CachingPredictor.encode`."""
        body = self.network.model
        hidden = body.embed_tokens(ids)
        rotation = body.rotary_emb(hidden, position_ids=positions)
        for layer in body.layers:
            hidden = layer(
                hidden,
                attention_mask=visible,
                position_embeddings=rotation,
                past_key_values=memory,
                is_causal=False,
            )
        return body.norm(hidden).to(ids.device)  # with a device map, the last layers may lie elsewhere

    def score(self, hidden: Tensor) -> Tensor:
        """Logits of hidden states."""
        return self.network.lm_head(hidden).float().to(hidden.device)


def read_network(
    folder: Path,
    architecture: Any,
    config: PreTrainedConfig,
    placement: Placement,
    *,
    key_mapping: dict[str, str] | None = None,
    may_leave_over: bool = False,
) -> PreTrainedModel:
    """Read safetensors weights into a transformers class; every weight must be found.

    Args:
        folder: Of the checkpoint.
        architecture: The transformers class, or one of its Auto classes.
        config: Its config.
        placement: Where the weights go, and in which precision.
        key_mapping: The checkpoint's weight names, as regular expressions, to the class's; None if equal.
        may_leave_over: Whether the checkpoint may hold weights that the class has no use for.

    Raises:
        ModelError: If a file is broken, or a weight is missing, left over or of another shape.
    """
    weight_files(folder)
    with reading("The weights", folder):
        network, report = architecture.from_pretrained(
            folder,
            config=config,
            key_mapping=key_mapping,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # reported below, by name
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            **placement.arguments(),
        )
    for what in ("missing_keys", "mismatched_keys", *([] if may_leave_over else ["unexpected_keys"])):
        if keys := sorted(map(str, report[what])):
            others = f" and {len(keys) - 3} others" if len(keys) > 3 else ""
            raise ModelError(
                f"The weights in {str(folder)!r} must fit {architecture.__name__} exactly; "
                f"{what.removesuffix('_keys')}: {', '.join(keys[:3])}{others}."
            )
    return network
