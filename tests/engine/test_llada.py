"""Both layouts of LLaDA against a forward pass written from the papers' equations."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaForCausalLM

from dspy_diffusion_infill.engine import attention
from dspy_diffusion_infill.engine.denoise import infill
from dspy_diffusion_infill.engine.llada import llama_config
from dspy_diffusion_infill.engine.model import load
from dspy_diffusion_infill.engine.reverse import Decoding
from dspy_diffusion_infill.errors import ModelError
from dspy_diffusion_infill.prompts.canvas import Denoising
from tests.engine.checkpoints import PUBLISHED, published_weights, write_checkpoint
from tests.engine.reference import reference, rotate

LLAMA = {
    "attn_norm": "input_layernorm",
    "ff_norm": "post_attention_layernorm",
    "attn_out": "self_attn.o_proj",
}
LLAMA |= {"ff_proj": "mlp.gate_proj", "up_proj": "mlp.up_proj", "ff_out": "mlp.down_proj"}
LLAMA |= {f"{name}_proj": f"self_attn.{name}_proj" for name in "qkv"}


def published_reference(ids):
    weights = {name.removeprefix("model.transformer."): value for name, value in published_weights().items()}
    blocks = [{name: weights[f"blocks.{layer}.{name}.weight"] for name in LLAMA} for layer in range(2)]
    outer = (weights["wte.weight"], weights["ln_f.weight"], weights["ff_out.weight"])
    return reference(ids, blocks, *outer, heads=4, kv_heads=2, theta=500000.0, eps=1e-5)


def llama_reference(ids, folder):
    weights = load_file(folder / "model.safetensors")
    blocks = [
        {name: weights[f"model.layers.{layer}.{llama}.weight"] for name, llama in LLAMA.items()}
        for layer in range(2)
    ]
    outer = (weights["model.embed_tokens.weight"], weights["model.norm.weight"], weights["lm_head.weight"])
    return reference(ids, blocks, *outer, heads=4, kv_heads=4, theta=10000.0, eps=1e-6)


@pytest.fixture(scope="module")
def ids():
    return torch.randint(0, 380, (17,), generator=torch.Generator().manual_seed(5))


def all_logits(model, ids):
    everywhere = torch.ones(1, len(ids), dtype=torch.bool)
    return model.logits(ids[None], everywhere, everywhere)


def test_the_published_layout_computes_what_the_papers_say(published, ids):
    logits = all_logits(load(str(published), device="cpu"), ids)
    torch.testing.assert_close(logits, published_reference(ids), atol=1e-4, rtol=1e-4)


def test_the_llama_layout_computes_what_the_papers_say(llama_shaped, model, ids):
    torch.testing.assert_close(
        all_logits(model, ids), llama_reference(ids, llama_shaped), atol=1e-4, rtol=1e-4
    )


def test_a_published_checkpoint_saved_in_the_llama_layout_computes_the_same(published, ids, tmp_path):
    first = load(str(published), device="cpu")
    first.network.save_pretrained(tmp_path, save_original_format=False)
    (tmp_path / "tokenizer.json").write_bytes((published / "tokenizer.json").read_bytes())
    assert json.loads((tmp_path / "config.json").read_text())["is_causal"] is False
    torch.testing.assert_close(all_logits(load(str(tmp_path)), ids), all_logits(first, ids), atol=0, rtol=0)
    plain = LlamaForCausalLM.from_pretrained(tmp_path)
    torch.testing.assert_close(plain(ids[None]).logits[0], all_logits(first, ids), atol=1e-5, rtol=1e-5)


def test_a_padded_row_equals_the_row_alone(model, ids):
    batch = torch.zeros(3, 17, dtype=torch.long)
    lengths = (17, 5, 11)
    for row, length in enumerate(lengths):
        batch[row, :length] = ids[:length]
    given = torch.arange(17) < torch.tensor(lengths)[:, None]
    together = model.logits(batch, given, given).split(lengths)
    for row, length in enumerate(lengths):
        torch.testing.assert_close(together[row], all_logits(model, ids[:length]), atol=1e-4, rtol=1e-4)


def test_logits_come_for_the_wanted_positions_only_in_reading_order(model, ids):
    wanted = torch.zeros(2, 17, dtype=torch.bool)
    wanted[0, 3] = wanted[1, 2] = wanted[1, 9] = True
    batch = torch.stack([ids, ids.flip(0)])
    some = model.logits(batch, torch.ones_like(wanted), wanted)
    assert some.shape == (3, 400)
    everything = torch.stack([all_logits(model, row) for row in batch])
    torch.testing.assert_close(some, torch.stack([everything[0, 3], everything[1, 2], everything[1, 9]]))


def test_bfloat16_weights_are_computed_in_float32_on_a_cpu(tmp_path, published, ids):
    rounded = {name: value.bfloat16() for name, value in published_weights().items()}
    model = load(str(write_checkpoint(tmp_path, PUBLISHED, rounded)), device="cpu")
    assert model.network.dtype == torch.float32
    assert load(str(published), device="cpu", dtype="bfloat16").network.dtype == torch.bfloat16


def test_positions_are_rotated_in_float32_whatever_the_precision(published, ids, monkeypatch):
    seen = []
    attend = attention.sdpa_attention_forward
    monkeypatch.setattr(
        attention,
        "sdpa_attention_forward",
        lambda module, query, key, value, *rest, **more: (
            seen.append((query, key, value)),
            attend(module, query, key, value, *rest, **more),
        )[1],
    )
    model = load(str(published), device="cpu", dtype="bfloat16")
    projected = []
    hook = model.network.model.layers[0].self_attn.q_proj.register_forward_hook(
        lambda module, args, output: projected.append(output)
    )
    all_logits(model, ids)
    hook.remove()
    query, key, value = seen[0]
    assert query.dtype == key.dtype == value.dtype == torch.bfloat16
    plain = projected[0].view(1, 17, 4, 8).transpose(1, 2)[0].float()
    torch.testing.assert_close(query[0], rotate(plain, 500000.0).bfloat16(), atol=0, rtol=2**-7)
    canvas = [*ids[:5].tolist(), *[model.mask_token_id] * 3, *ids[8:].tolist()]
    window = Decoding(denoising=Denoising(temperature=0.0, cache="window"))
    ((one,),) = infill(model, [canvas], decoding=window)
    assert one.log_likelihood < 0


def test_a_config_that_asks_for_eager_attention_is_computed_all_the_same(llama_shaped, ids, tmp_path):
    """Eager attention refuses queries that are more precise than values."""
    folder = shutil.copytree(llama_shaped, tmp_path / "eager")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "attn_implementation": "eager"}))
    expected, found = (load(str(path), device="cpu", dtype="bfloat16") for path in (llama_shaped, folder))
    assert torch.equal(all_logits(found, ids), all_logits(expected, ids))


def test_a_tied_head_is_the_embedding(tmp_path, ids):
    weights = published_weights()
    head = weights.pop("model.transformer.ff_out.weight")
    model = load(str(write_checkpoint(tmp_path, {**PUBLISHED, "weight_tying": True}, weights)))
    untied = {**weights, "model.transformer.ff_out.weight": weights["model.transformer.wte.weight"].clone()}
    other = load(str(write_checkpoint(tmp_path / "untied", PUBLISHED, untied)))
    assert head.shape == (400, 32)
    torch.testing.assert_close(all_logits(model, ids), all_logits(other, ids))


def test_the_sizes_of_llada_8b_give_its_number_of_parameters():
    sizes = {"d_model": 4096, "mlp_hidden_size": 12288, "n_layers": 32, "n_heads": 32, "n_kv_heads": 32}
    published = {**PUBLISHED, **sizes, "embedding_size": 126464, "max_sequence_length": 4096}
    with torch.device("meta"):
        network = LlamaForCausalLM(llama_config(published))
    assert sum(weight.numel() for weight in network.parameters()) == 8_015_581_184


def test_a_setting_that_llama_cannot_compute_is_refused():
    with pytest.raises(ModelError, match=r"must have rope=True; config.json says \{'rope': False\}"):
        llama_config({**PUBLISHED, "rope": False})


def test_a_published_config_without_a_size_is_refused():
    with pytest.raises(ModelError, match="must hold 'd_model'"):
        llama_config({key: value for key, value in PUBLISHED.items() if key != "d_model"})
