"""Attention that takes the examples of a row one by one."""

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from dspy_diffusion_infill.engine import attention
from dspy_diffusion_infill.engine.attention import Apart, attend_by_example, attends_by_example

SIZES = {
    "vocab_size": 10, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 32, "is_causal": False,
    "initializer_range": 0.5, "pad_token_id": None, "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip
IDS = torch.tensor([[1, 2, 3, 4, 5, 6, 7], [7, 6, 5, 4, 0, 0, 0]])
APART = Apart([[3, 4], [4, 3]], torch.tensor([[1, 0, 0, 1, 1, 0, 0], [0, 0, 1, 0, 0, 0, 0]]).bool())
POSITIONS = torch.tensor([[0, 1, 2, 0, 1, 2, 3], [0, 1, 2, 3, 0, 1, 2]])


@pytest.fixture(params=["llama", "qwen2"])
def model(request: pytest.FixtureRequest):
    torch.manual_seed(0)
    if request.param == "llama":
        return LlamaForCausalLM(LlamaConfig(**SIZES)).eval()
    return Qwen2ForCausalLM(Qwen2Config(**SIZES, use_sliding_window=False)).eval()


def logits(model, ids: torch.Tensor, **more: object) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=ids, use_cache=False, **more).logits


def test_each_example_is_as_it_is_alone(model):
    alone = {
        (row, start): logits(model, IDS[row : row + 1, start:end])[0]
        for row, start, end in ((0, 0, 3), (0, 3, 7), (1, 0, 4))
    }
    attend_by_example(model)
    found = logits(model, IDS, position_ids=POSITIONS, apart=APART)
    for row, start, place in ((0, 0, 0), (0, 3, 3), (0, 3, 4), (1, 0, 2)):
        torch.testing.assert_close(found[row, place], alone[row, start][place - start], atol=1e-5, rtol=0)


def gradients(model) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model(input_ids=IDS, position_ids=POSITIONS, use_cache=False, apart=APART).logits[
        APART.read
    ].sum().backward()
    return {name: one.grad for name, one in model.named_parameters()}


def test_plain_products_are_what_the_kernel_computes(model, monkeypatch: pytest.MonkeyPatch):
    """In float32, where the two differ by rounding alone."""
    attend_by_example(model)
    monkeypatch.setattr(attention, "_by_products", lambda *_: False)
    by_kernel = logits(model, IDS, position_ids=POSITIONS, apart=APART), gradients(model)
    monkeypatch.setattr(attention, "_by_products", lambda *_: True)
    monkeypatch.setattr(attention, "sdpa_attention_forward", None)
    found = logits(model, IDS, position_ids=POSITIONS, apart=APART), gradients(model)
    torch.testing.assert_close(found, by_kernel, atol=1e-4, rtol=1e-4)


def asked_of_the_kernel(model, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many examples."""
    calls: list[int] = []
    attend = attention.sdpa_attention_forward

    def seen(*args, **settings: object):
        calls.append(1)
        return attend(*args, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(attention, "sdpa_attention_forward", seen)
        gradients(model)
    return len(calls)


def test_products_are_for_short_examples_in_bfloat16_without_dropout(model, monkeypatch: pytest.MonkeyPatch):
    attend_by_example(model)
    examples = 2 * 4
    assert asked_of_the_kernel(model, monkeypatch) == examples
    model.to(torch.bfloat16)
    assert asked_of_the_kernel(model, monkeypatch) == 0
    with monkeypatch.context() as patch:
        patch.setattr(attention, "_FAST_TO", 3)
        assert asked_of_the_kernel(model, monkeypatch) == examples / 2
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.5
    assert asked_of_the_kernel(model.train(), monkeypatch) == examples
    assert asked_of_the_kernel(model.eval(), monkeypatch) == 0


def test_without_it_attention_is_as_it_was(model):
    mask = torch.tensor([[1] * 7, [1] * 4 + [0] * 3])
    before = logits(model, IDS, attention_mask=mask)
    attend_by_example(model)
    assert torch.equal(logits(model, IDS, attention_mask=mask), before)


def test_the_last_layer_asks_for_what_is_read_and_no_mask_is_made(model, monkeypatch: pytest.MonkeyPatch):
    asked: list[tuple[int, int]] = []
    attend = attention.sdpa_attention_forward

    def seen(module, query, key, value, mask, **settings: object):
        assert mask is None
        asked.append((query.shape[2], key.shape[2]))
        return attend(module, query, key, value, mask, **settings)

    monkeypatch.setattr(attention, "sdpa_attention_forward", seen)
    attend_by_example(model)
    logits(model, IDS, position_ids=POSITIONS, apart=APART)
    assert asked == [(3, 3), (4, 4), (4, 4), (3, 3), (1, 3), (2, 4), (1, 4), (1, 3)]


def test_what_attends_otherwise_is_left_as_it_is(model):
    model.set_attn_implementation("eager")
    attend_by_example(model)
    assert not attends_by_example(model)
    assert model.config._attn_implementation == "eager"


def test_nothing_of_it_is_saved(model, tmp_path):
    attend_by_example(model)
    assert attends_by_example(model)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert loaded.config._attn_implementation == "sdpa"
    assert "sdpa_by_example" not in (tmp_path / "config.json").read_text()
