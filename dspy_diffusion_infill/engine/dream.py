"""Dream: a Qwen2 without the causal mask, adapted from predicting the next token.

Its logits are shifted by one: token i is read from the row of token i - 1. Checkpoints are the published ones
(`model_type: Dream`, weight names equal to Qwen2's) and Qwen2-shaped ones (`model_type: qwen2`,
`is_causal: false`), read with the same shift.

Source: Dream 7B (arXiv:2508.15487), `modeling_dream.py` and `generation_utils.py`. The chat format is that of
Qwen2.5, from which Dream was made. Its remote code is not needed, and never run.
"""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

from dspy_diffusion_infill.engine.checkpoint import read_config, read_tokenizer, reading
from dspy_diffusion_infill.engine.decoder import BidirectionalDecoder, read_network
from dspy_diffusion_infill.engine.llada import check_mask
from dspy_diffusion_infill.engine.placement import Placement
from dspy_diffusion_infill.engine.vocabulary import ChatFormat, Vocabulary

CHAT = ChatFormat(
    mask="<|mask|>",
    stops=("<|endoftext|>", "<|im_end|>"),
    header=("<|im_start|>",),
    header_text="\n",
    end=("<|im_end|>",),
    end_text="\n",
    system="You are a helpful assistant.",
)
"""In Dream-7B's tokenizer: mask 151666, <|endoftext|> 151643, <|im_end|> 151645."""

QWEN2_SHAPED = {
    "model_type": "qwen2",
    "is_causal": False,
    "use_sliding_window": False,
    "sliding_window": None,
    "layer_types": None,
}
"""Dream attends everywhere, whatever is left in its config of the Qwen2.5 it was made from."""

CONTEXT_LENGTH = 2048
"""What Dream-7B was trained on; its config declares what Qwen2.5 could."""


def load(folder: Path, *, name: str, placement: Placement) -> BidirectionalDecoder:
    """Load a Dream checkpoint.

    Args:
        folder: With config.json, safetensors files, and tokenizer.json or Qwen2's vocab.json and merges.txt.
        name: Identifies weights and precision.
        placement: Where the weights go, and in which precision.

    Raises:
        ModelError: If the checkpoint is broken, or not a Dream.
    """
    settings = read_config(folder) | QWEN2_SHAPED
    with reading("The config", folder):
        config = Qwen2Config.from_dict(settings)
    # A padding id would pin that row of the embedding; here padding is the end-of-text token.
    config.pad_token_id = None
    vocabulary = Vocabulary(tokenizer_of(folder), CHAT, config.vocab_size)
    check_mask(settings, vocabulary)
    network = read_network(folder, Qwen2ForCausalLM, config, placement)
    length = min(config.max_position_embeddings, CONTEXT_LENGTH)
    return BidirectionalDecoder(network, vocabulary, name, length, shift=1, folder=folder)


def tokenizer_of(folder: Path) -> Tokenizer:
    """Dream is published with Qwen2's two vocabulary files, and no tokenizer.json."""
    if not (folder / "tokenizer.json").is_file() and (folder / "vocab.json").is_file():
        with reading("The tokenizer", folder):
            return Qwen2Tokenizer.from_pretrained(folder, local_files_only=True).backend_tokenizer
    return read_tokenizer(folder)
