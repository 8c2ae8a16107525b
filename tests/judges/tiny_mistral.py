"""A tiny Mistral with random weights, in the files and names that Prometheus 2 is published in."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, trainers
from transformers import MistralConfig, MistralForCausalLM, PreTrainedTokenizerFast

SPECIAL = ["<unk>", "<s>", "</s>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
TEXT = [
    "You are a fair judge assistant tasked with providing clear, objective feedback based on criteria.",
    "###Task Description: An instruction, a response to evaluate, and a score rubric are given.",
    "Write a detailed feedback that assess the quality of the response strictly based on the score rubric.",
    "Feedback: (write a feedback for criteria) [RESULT] (an integer number between 1 and 5)",
    "Score 1: No. Score 2: Poor. Score 3: Half. Score 4: Good. Score 5: Yes. 0 6 7 8 9 10",
]


def make_judge(folder: Path) -> Path:
    """Write config, weights in shards with their index, and tokenizer; the weights are bfloat16."""
    tokenizer = _tokenizer()
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=32768,
        rope_theta=1e6,
        sliding_window=None,
        tie_word_embeddings=False,
    )
    MistralForCausalLM(config).to(torch.bfloat16).save_pretrained(folder, max_shard_size="400KB")
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer() -> PreTrainedTokenizerFast:
    """Mistral's kind: BPE over text with marked blanks, bytes for what is unknown, digits one by one."""
    bpe = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    bpe.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    bpe.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=SPECIAL + BYTES, max_token_length=8)
    bpe.train_from_iterator(TEXT, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=_with_bytes_as_text(bpe),
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        add_bos_token=True,
        model_max_length=32768,
    )


def _with_bytes_as_text(bpe: Tokenizer) -> Tokenizer:
    """The same without the trainer's mark on bytes, which keeps special tokens out of replies."""
    parts = json.loads(bpe.to_str())
    parts["added_tokens"] = [token for token in parts["added_tokens"] if token["content"] in SPECIAL]
    return Tokenizer.from_str(json.dumps(parts))
