"""LLaDA: a Llama without the causal mask.

Checkpoints come in two layouts. *Published* (`model_type: llada`): LLaDA's own names for settings and weights
are mapped onto transformers' Llama. *Llama-shaped* (`model_type: llama`, `is_causal: false`): what this
project trains and saves; and iLLaDA, which has Llama's names under a class of its own.

Source: LLaDA (arXiv:2502.09992); the released `modeling_llada.py` computes what Llama computes, to the bit,
without a causal mask. Its remote code is not needed, and never run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from dspy_diffusion_infill.engine.checkpoint import read_config, read_tokenizer, reading
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

MASKS = (CHAT.mask, "<[MASK]>")
"""Of LLaDA, and of iLLaDA (id 5)."""

LLAMA_SHAPED = {"model_type": "llama", "is_causal": False}
"""What a config of that layout comes to; that of iLLaDA names its own class."""

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
    published = settings.get("model_type") == "llada"
    with reading("The config", folder):
        config = llama_config(settings) if published else LlamaConfig.from_dict(settings | LLAMA_SHAPED)
    # A padding id would pin that row of the embedding; here padding is the end-of-text token.
    config.pad_token_id = None
    tokenizer = read_tokenizer(folder)
    vocabulary = Vocabulary(tokenizer, chat_format(tokenizer, settings), config.vocab_size)
    check_mask(settings, vocabulary)
    key_mapping = PUBLISHED_TO_LLAMA if published else None
    network = read_network(folder, LlamaForCausalLM, config, placement, key_mapping=key_mapping)
    rotate_in_float32(network)
    return BidirectionalDecoder(network, vocabulary, name, config.max_position_embeddings, folder=folder)


def chat_format(tokenizer: Tokenizer, settings: dict[str, Any]) -> ChatFormat:
    """LLaDA's format; without roles for a model whose tokenizer has no headers, which never saw one.

    LLaDA-8B-Base has none, and iLLaDA has a mask, a start and an end of its own: turns are then parted by
    blank lines.
    """
    words = tokenizer.get_vocab(with_added_tokens=True)
    if all(token in words for token in (*CHAT.header, *CHAT.end)):
        return CHAT

    def own(token: str, setting: str) -> str:
        declared = settings.get(setting)
        found = tokenizer.id_to_token(declared) if isinstance(declared, int) else None
        return token if token in words else found or token

    mask = next((token for token in MASKS if token in words), CHAT.mask)
    start, stop = own(CHAT.start[0], "bos_token_id"), own(CHAT.stops[0], "eos_token_id")
    return ChatFormat(mask=mask, stops=(stop,), start=(start,), end_text="\n\n")


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
            vocab_size=published.get("embedding_size") or published["vocab_size"],
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


def check_mask(settings: dict[str, Any], vocabulary: Vocabulary) -> None:
    """See that config and tokenizer have one mask token.

    Raises:
        ModelError: If the config names another id.
    """
    declared = settings.get("mask_token_id")
    if declared not in (None, vocabulary.mask_token_id):
        raise ModelError(
            f"mask_token_id must be {vocabulary.mask_token_id}, the tokenizer's {vocabulary.chat.mask}; "
            f"config.json says {declared}. Tokenizer and weights are of two different checkpoints."
        )
