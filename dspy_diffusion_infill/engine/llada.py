"""LLaDA: a Llama without the causal mask.

Checkpoints come in two layouts. *Published* (`model_type: llada`): LLaDA's own names for settings and weights
are mapped onto transformers' Llama. *Llama-shaped* (`model_type: llama`, `is_causal: false`): what this
project trains and saves.

Source: LLaDA (arXiv:2502.09992); the released `modeling_llada.py` computes what Llama computes, to the bit,
without a causal mask. Its remote code is not needed, and never run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import LlamaConfig, LlamaForCausalLM

from dspy_diffusion_infill.engine.checkpoint import read_config, read_tokenizer
from dspy_diffusion_infill.engine.decoder import BidirectionalDecoder, read_network
from dspy_diffusion_infill.engine.placement import Placement
from dspy_diffusion_infill.engine.rotation import rotate_in_float32
from dspy_diffusion_infill.engine.vocabulary import ChatFormat, Vocabulary
from dspy_diffusion_infill.errors import ModelError

CHAT = ChatFormat(
    mask="<|mdm_mask|>",
    stops=("<|endoftext|>", "<|eot_id|>"),
    start=("<|startoftext|>",),
    header=("<|start_header_id|>", "<|end_header_id|>"),
    header_text="\n\n",
    end=("<|eot_id|>",),
)
"""In LLaDA-8B's tokenizer: mask 126336, <|endoftext|> 126081, <|eot_id|> 126348, <|startoftext|> 126080."""

PUBLISHED_TO_LLAMA = {
    r"^model\.transformer\.wte\.": "model.embed_tokens.",
    r"^model\.transformer\.ln_f\.": "model.norm.",
    r"^model\.transformer\.ff_out\.": "lm_head.",
    r"^model\.transformer\.blocks\.(\d+)\.attn_norm\.": r"model.layers.\1.input_layernorm.",
    r"^model\.transformer\.blocks\.(\d+)\.ff_norm\.": r"model.layers.\1.post_attention_layernorm.",
    r"^model\.transformer\.blocks\.(\d+)\.q_proj\.": r"model.layers.\1.self_attn.q_proj.",
    r"^model\.transformer\.blocks\.(\d+)\.k_proj\.": r"model.layers.\1.self_attn.k_proj.",
    r"^model\.transformer\.blocks\.(\d+)\.v_proj\.": r"model.layers.\1.self_attn.v_proj.",
    r"^model\.transformer\.blocks\.(\d+)\.attn_out\.": r"model.layers.\1.self_attn.o_proj.",
    r"^model\.transformer\.blocks\.(\d+)\.ff_proj\.": r"model.layers.\1.mlp.gate_proj.",
    r"^model\.transformer\.blocks\.(\d+)\.up_proj\.": r"model.layers.\1.mlp.up_proj.",
    r"^model\.transformer\.blocks\.(\d+)\.ff_out\.": r"model.layers.\1.mlp.down_proj.",
}

# Settings of the published code that Llama has no counterpart for, at the only value it can reproduce.
_FIXED = {
    "activation_type": "silu",
    "alibi": False,
    "attention_layer_norm": False,
    "block_type": "llama",
    "include_bias": False,
    "include_qkv_bias": False,
    "input_emb_norm": False,
    "layer_norm_type": "rms",
    "rope": True,
    "scale_logits": False,
}


def load(folder: Path, *, name: str, placement: Placement) -> BidirectionalDecoder:
    """Load a LLaDA checkpoint in either layout.

    Args:
        folder: With config.json, tokenizer.json and safetensors files.
        name: Identifies weights and precision.
        placement: Where the weights go, and in which precision.

    Raises:
        ModelError: If the checkpoint is broken, or not a LLaDA.
    """
    settings = read_config(folder)
    published = settings["model_type"] == "llada"
    config = llama_config(settings) if published else LlamaConfig.from_dict(settings)
    # A padding id would pin that row of the embedding; here padding is the end-of-text token.
    config.pad_token_id = None
    vocabulary = Vocabulary(read_tokenizer(folder), CHAT, config.vocab_size)
    _check_mask(settings, vocabulary)
    key_mapping = PUBLISHED_TO_LLAMA if published else None
    network = read_network(folder, LlamaForCausalLM, config, placement, key_mapping=key_mapping)
    rotate_in_float32(network)
    return BidirectionalDecoder(network, vocabulary, name, config.max_position_embeddings, folder=folder)


def llama_config(published: dict[str, Any]) -> LlamaConfig:
    """The Llama that computes what a published LLaDA config describes.

    Raises:
        ModelError: If it describes what no Llama computes, or lacks a size.

    Example:
        >>> sizes = dict(d_model=64, mlp_hidden_size=96, n_layers=2, n_heads=4, embedding_size=512)
        >>> llama_config(dict(**sizes, max_sequence_length=128, rms_norm_eps=1e-5, rope_theta=5e5)).head_dim
        16
    """
    if odd := {key: published[key] for key, value in _FIXED.items() if published.get(key, value) != value}:
        wanted = ", ".join(f"{key}={_FIXED[key]!r}" for key in odd)
        raise ModelError(f"A LLaDA checkpoint must have {wanted}; config.json says {odd}.")
    try:
        return LlamaConfig(
            vocab_size=published["embedding_size"],
            hidden_size=published["d_model"],
            intermediate_size=published["mlp_hidden_size"],
            num_hidden_layers=published["n_layers"],
            num_attention_heads=published["n_heads"],
            num_key_value_heads=published.get("n_kv_heads"),
            max_position_embeddings=published["max_sequence_length"],
            rms_norm_eps=published["rms_norm_eps"],
            rope_parameters={"rope_type": "default", "rope_theta": published["rope_theta"]},
            tie_word_embeddings=published.get("weight_tying", False),
            bos_token_id=None,
            eos_token_id=published.get("eos_token_id"),
            is_causal=False,  # pyright: ignore[reportCallIssue]  (extra settings are kept)
        )
    except KeyError as error:
        raise ModelError(f"The config.json of a published LLaDA must hold {error}; it does not.") from error


def _check_mask(settings: dict[str, Any], vocabulary: Vocabulary) -> None:
    declared = settings.get("mask_token_id")
    if declared not in (None, vocabulary.mask_token_id):
        raise ModelError(
            f"mask_token_id must be {vocabulary.mask_token_id}, the tokenizer's {CHAT.mask}; "
            f"config.json says {declared}. Tokenizer and weights are of two different checkpoints."
        )
