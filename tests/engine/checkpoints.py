"""Tiny checkpoints with random weights, in the layouts in which they are published."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM

SPECIAL = (
    "<|startoftext|>",
    "<|endoftext|>",
    "<|mdm_mask|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
)
# As in the tokenizers of Llama 3 and Qwen2: line ends never join what follows them.
WORDS = (
    r"'(?:s|t|re|ve|m|ll|d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
GPT2_WORDS = r"'(?:s|t|re|ve|m|ll|d)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
TEXT = [
    "Rate the review from 1 to 5, where 5 is the best. The plot was dull and the acting was good.",
    "Classify the sentence as positive or negative. Answer with one word only. [RESULT] 4",
    *["\n\n"] * 20,
    "user assistant system: what a fine film it is, and how slowly it ends!\n\nText: it is a text.",
]
EMBEDDING_ROWS = 400
PUBLISHED = {
    "model_type": "llada",
    "activation_type": "silu",
    "alibi": False,
    "attention_layer_norm": False,
    "block_type": "llama",
    "d_model": 32,
    "embedding_size": EMBEDDING_ROWS,
    "include_bias": False,
    "include_qkv_bias": False,
    "input_emb_norm": False,
    "layer_norm_type": "rms",
    "max_sequence_length": 128,
    "mlp_hidden_size": 48,
    "n_heads": 4,
    "n_kv_heads": 2,
    "n_layers": 2,
    "rms_norm_eps": 1e-5,
    "rope": True,
    "rope_theta": 500000.0,
    "scale_logits": False,
    "weight_tying": False,
}


def make_tokenizer(special: Sequence[str] = SPECIAL, words: str = WORDS) -> Tokenizer:
    """A byte-level BPE tokenizer; the special tokens, LLaDA's by default, have the first ids."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(words), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=380, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    return tokenizer


def published_weights(config: dict[str, object] = PUBLISHED, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights under the names LLaDA's checkpoints use."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator) * 0.3

    width, inner, rows = 32, 48, EMBEDDING_ROWS
    weights = {
        "model.transformer.wte.weight": normal(rows, width),
        "model.transformer.ln_f.weight": 1 + normal(width),
        "model.transformer.ff_out.weight": normal(rows, width),
    }
    for layer in range(2):
        shapes = {
            "attn_norm": (width,),
            "ff_norm": (width,),
            "q_proj": (width, width),
            "k_proj": (width // 2, width),
            "v_proj": (width // 2, width),
            "attn_out": (width, width),
            "ff_proj": (inner, width),
            "up_proj": (inner, width),
            "ff_out": (width, inner),
        }
        for name, shape in shapes.items():
            weights[f"model.transformer.blocks.{layer}.{name}.weight"] = normal(*shape)
    return weights


def write_checkpoint(folder: Path, config: dict[str, object], weights: dict[str, torch.Tensor]) -> Path:
    """A checkpoint in the published layout: config.json, tokenizer.json, model.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    make_tokenizer().save(str(folder / "tokenizer.json"))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def write_llama_shaped(folder: Path, seed: int = 0) -> Path:
    """A checkpoint as this project saves it: transformers' Llama with `is_causal: false`."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=EMBEDDING_ROWS,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=128,
        initializer_range=0.3,
        is_causal=False,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    make_tokenizer().save(str(folder / "tokenizer.json"))
    return folder
