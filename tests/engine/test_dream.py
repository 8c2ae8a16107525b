"""Dream against a forward pass written from the papers' equations."""

from __future__ import annotations

import json
import math
import shutil

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from dspy_diffusion_infill.engine.denoise import infill
from dspy_diffusion_infill.engine.infiller import DiffusionInfiller
from dspy_diffusion_infill.engine.model import load
from dspy_diffusion_infill.errors import ModelError
from dspy_diffusion_infill.prompts.canvas import Canvas, Masked, Message
from tests.engine.checkpoints import make_tokenizer
from tests.engine.reference import reference

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|mask|>")
CONFIG = {
    "architectures": ["DreamModel"],
    "model_type": "Dream",
    "hidden_size": 32,
    "intermediate_size": 48,
    "mask_token_id": 3,
    "max_position_embeddings": 131072,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": False,
    "vocab_size": 400,
}
NAMES = {
    "attn_norm": "input_layernorm",
    "ff_norm": "post_attention_layernorm",
    "attn_out": "self_attn.o_proj",
}
NAMES |= {"ff_proj": "mlp.gate_proj", "up_proj": "mlp.up_proj", "ff_out": "mlp.down_proj"}
NAMES |= {f"{name}_proj": f"self_attn.{name}_proj" for name in "qkv"}
SHAPES = {
    "attn_norm": (32,),
    "ff_norm": (32,),
    "attn_out": (32, 32),
    "ff_proj": (48, 32),
    "up_proj": (48, 32),
}
SHAPES |= {"ff_out": (32, 48), "q_proj": (32, 32), "k_proj": (16, 32), "v_proj": (16, 32)}


def random_parts():
    """Embedding, last norm, head; and two blocks."""
    generator = torch.Generator().manual_seed(3)

    def normal(*shape):
        return torch.randn(shape, generator=generator) * 0.3

    blocks = [{name: normal(*shape) for name, shape in SHAPES.items()} for _ in range(2)]
    for block in blocks:
        block |= {"q_bias": normal(32), "k_bias": normal(16), "v_bias": normal(16)}
    return (normal(400, 32), 1 + normal(32), normal(400, 32)), blocks


def published(outer, blocks):
    """The same weights under Dream's names."""
    weights = dict(
        zip(("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"), outer, strict=True)
    )
    for layer, block in enumerate(blocks):
        weights |= {f"model.layers.{layer}.{NAMES[name]}.weight": block[name] for name in NAMES}
        weights |= {
            f"model.layers.{layer}.self_attn.{name}_proj.bias": block[f"{name}_bias"] for name in "qkv"
        }
    return weights


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dream")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    make_tokenizer(SPECIAL).save(str(folder / "tokenizer.json"))
    save_file(published(*random_parts()), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def dream(folder):
    return load(str(folder), device="cpu")


@pytest.fixture(scope="module")
def ids():
    return torch.randint(4, 380, (13,), generator=torch.Generator().manual_seed(5))


def all_logits(model, ids):
    everywhere = torch.ones(1, len(ids), dtype=torch.bool)
    return model.logits(ids[None], everywhere, everywhere)


def test_logits_are_those_of_the_papers_shifted_by_one(dream, ids):
    outer, blocks = random_parts()
    rows = reference(ids, blocks, *outer, heads=4, kv_heads=2, theta=1e6, eps=1e-6)
    shifted = torch.cat([rows[:1], rows[:-1]])
    torch.testing.assert_close(all_logits(dream, ids), shifted, atol=1e-4, rtol=1e-4)


def test_a_padded_row_equals_the_row_alone(dream, ids):
    batch = torch.stack([ids, torch.cat([ids[:6], torch.zeros(7, dtype=torch.long)])])
    given = torch.arange(13) < torch.tensor([[13], [6]])
    together = dream.logits(batch, given, given)
    torch.testing.assert_close(together[13:], all_logits(dream, ids[:6]), atol=1e-4, rtol=1e-4)


def test_a_window_is_filled_from_the_row_before_each_mask(dream, ids):
    canvas = [*ids[:5].tolist(), dream.mask_token_id, *ids[6:].tolist()]
    (one,) = infill(dream, [canvas])[0]
    outer, blocks = random_parts()
    row = reference(torch.tensor(canvas), blocks, *outer, heads=4, kv_heads=2, theta=1e6, eps=1e-6)[4]
    row[sorted(dream.banned_ids)] = -math.inf
    assert one.log_likelihood == pytest.approx(float(row.log_softmax(0)[one.ids[5]]), abs=1e-4)


def test_a_conversation_is_written_as_qwen_writes_it(dream, folder):
    template = (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nRate it.<|im_end|>\n<|im_start|>assistant\n"
    )
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    laid_out = dream.vocabulary.lay_out([Message.text("user", "Rate it.")], answer_tokens=1)
    assert laid_out.ids[:-1] == tokenizer.encode(template, add_special_tokens=False).ids
    own = dream.vocabulary.lay_out([Message.text("system", "Be brief."), Message.text("user", "Hi")])
    assert "helpful" not in dream.vocabulary.decode(own.ids)


def test_its_context_is_what_it_was_trained_on(dream):
    assert dream.context_length == 2048


def test_it_infills_canvases(dream):
    canvas = Canvas((Message("system", ("Rate", Masked(3), ".")),))
    (fillings,) = DiffusionInfiller(dream).infill([canvas], num_candidates=2, seed=0)
    assert len(fillings) == 2


def test_what_it_saves_is_read_with_the_same_shift(dream, folder, ids, tmp_path):
    dream.network.save_pretrained(tmp_path, save_original_format=False)
    shutil.copy(folder / "tokenizer.json", tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "qwen2"
    torch.testing.assert_close(all_logits(load(str(tmp_path)), ids), all_logits(dream, ids), atol=0, rtol=0)


def test_the_published_vocabulary_files_do_without_a_tokenizer_json(folder, dream, tmp_path):
    for name in ("config.json", "model.safetensors"):
        shutil.copy(folder / name, tmp_path)
    spec = json.loads((folder / "tokenizer.json").read_text())
    (tmp_path / "vocab.json").write_text(json.dumps(spec["model"]["vocab"]))
    merges = "\n".join(" ".join(pair) for pair in spec["model"]["merges"])
    (tmp_path / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
    added = {
        str(token["id"]): {key: value for key, value in token.items() if key != "id"}
        for token in spec["added_tokens"]
    }
    declared = {"added_tokens_decoder": added, "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(declared))
    other = load(str(tmp_path))
    message = [Message.text("user", "Rate the review <|mask|>")]
    assert other.vocabulary.mask_token_id == 3
    assert dream.vocabulary.decode(other.vocabulary.lay_out(message).ids) == dream.vocabulary.decode(
        dream.vocabulary.lay_out(message).ids
    )


def test_a_mask_id_that_the_tokenizer_contradicts_is_refused(folder, tmp_path):
    other = shutil.copytree(folder, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "mask_token_id": 7}))
    with pytest.raises(ModelError, match=r"mask_token_id must be .* the tokenizer's <\|mask\|>; .* says 7"):
        load(str(other))


def test_windows_of_attention_left_in_its_config_are_not_heeded(folder, dream, ids, tmp_path):
    other = shutil.copytree(folder, tmp_path / "windows")
    config = json.loads((other / "config.json").read_text())
    left = {"use_sliding_window": True, "sliding_window": 2, "layer_types": ["sliding_attention"] * 2}
    (other / "config.json").write_text(json.dumps({**config, **left}))
    assert torch.equal(all_logits(load(str(other)), ids), all_logits(dream, ids))
