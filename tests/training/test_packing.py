"""Several examples to a row: none sees its neighbours, and each costs what it costs alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from dspy_diffusion_infill.engine.attention import attend_by_example
from dspy_diffusion_infill.training import loss
from dspy_diffusion_infill.training.loss import IGNORED, masked_losses
from dspy_diffusion_infill.training.packing import Noised, lay_out, spread

MASK, PADDING = 9, 0
SIZES = {
    "vocab_size": 10, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 32, "is_causal": False,
    "initializer_range": 0.5, "pad_token_id": None, "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip


def network(family: str, attention: str = "sdpa"):
    torch.manual_seed(0)
    named = "sdpa" if attention == "by example" else attention
    if family == "llama":
        model = LlamaForCausalLM(LlamaConfig(**SIZES, attn_implementation=named))
    else:
        model = Qwen2ForCausalLM(Qwen2Config(**SIZES, use_sliding_window=False, attn_implementation=named))
    if attention == "by example":
        attend_by_example(model)
    return model


def noised(clean: list[int], masked: list[int]) -> Noised:
    ids, labels = torch.tensor(clean), torch.full((len(clean),), IGNORED)
    labels[masked] = ids[masked]
    return Noised(ids.index_fill(0, torch.tensor(masked), MASK), labels)


EXAMPLES = [noised([1, 2, 3, 4, 5], [2, 4]), noised([6, 7, 8], [1]), noised([3, 1, 2, 8, 8, 1, 4], [3, 6])]


def losses(model, rows: list[list[Noised]], shift: int) -> torch.Tensor:
    batch = lay_out(rows, PADDING)
    labels, attention = batch["labels"], batch["attention_mask"]
    return masked_losses(model, batch["input_ids"], labels, attention, blind=batch.get("blind"), shift=shift)


@pytest.mark.parametrize("attention", ["sdpa", "by example", "eager"])
@pytest.mark.parametrize(("family", "shift"), [("llama", 0), ("qwen2", 1)])
def test_packed_losses_equal_those_of_examples_alone(family: str, shift: int, attention: str):
    model = network(family, attention)
    alone = torch.cat([losses(model, [[one]], shift) for one in EXAMPLES])
    packed = losses(model, [EXAMPLES], shift)
    torch.testing.assert_close(packed, alone, atol=1e-5, rtol=0)
    beside_padding = losses(model, [EXAMPLES[:1], EXAMPLES[1:]], shift)
    torch.testing.assert_close(beside_padding, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("attention", ["sdpa", "by example", "eager"])
def test_a_blind_context_sees_itself_alone(attention: str):
    """Its losses are those of a row without what it is blind to; what lies before it sees it."""
    model = network("llama", attention)
    before, context = noised([1, 2, 3], [1]), noised([6, 7, 8, 4], [2])
    both = noised([1, 2, 3, 6, 7, 8, 4], [1, 5])
    blind = both._replace(blind=torch.arange(7) >= 3)
    seen, hidden = losses(model, [[both]], 0), losses(model, [[blind]], 0)
    torch.testing.assert_close(hidden[1:], losses(model, [[context]], 0), atol=1e-5, rtol=0)
    assert abs(hidden[0] - losses(model, [[before]], 0)[0]) > 1e-3
    assert abs(hidden[1] - seen[1]) > 1e-3
    packed = losses(model, [[EXAMPLES[0], blind], [both]], 0)
    expected = torch.cat([losses(model, [[EXAMPLES[0]]], 0), hidden, seen])
    torch.testing.assert_close(packed, expected, atol=1e-5, rtol=0)


def test_no_token_sees_a_neighbour():
    """With attention over the whole row, the same positions leak: the control."""
    model = network("llama")
    other = [noised([9, 9, 9, 1, 2], [0]), *EXAMPLES[1:]]
    torch.testing.assert_close(
        losses(model, [EXAMPLES], 0)[2:], losses(model, [other], 0)[1:], atol=1e-5, rtol=0
    )
    leaky = lay_out([EXAMPLES], PADDING) | {"attention_mask": torch.ones(1, 15, dtype=torch.long)}
    found = masked_losses(model, leaky["input_ids"], leaky["labels"], leaky["attention_mask"])
    assert (found - losses(model, [EXAMPLES], 0)).abs().max() > 1e-2


def test_a_shifted_model_is_read_one_place_to_the_left():
    model = network("qwen2")
    batch = lay_out([EXAMPLES[:1]], PADDING)
    logits = model(input_ids=batch["input_ids"]).logits[0]
    wanted = [-logits[at - 1].log_softmax(0)[token] for at, token in ((2, 3), (4, 5))]
    torch.testing.assert_close(losses(model, [EXAMPLES[:1]], 1), torch.stack(wanted))


@pytest.mark.parametrize("shift", [0, 1])
def test_losses_in_chunks_have_the_same_values_and_gradients(monkeypatch: pytest.MonkeyPatch, shift: int):
    model = network("llama")
    wanted = losses(model, [EXAMPLES], shift)
    wanted.sum().backward()
    whole = {name: value.grad.clone() for name, value in model.named_parameters()}
    model.zero_grad()
    monkeypatch.setattr(loss, "MAX_LOGITS", 20)  # two masked tokens at a time, of five
    found = losses(model, [EXAMPLES], shift)
    torch.testing.assert_close(found, wanted)
    found.sum().backward()
    for name, value in model.named_parameters():
        torch.testing.assert_close(value.grad, whole[name], atol=1e-5, rtol=1e-4)


def test_logits_of_all_chunks_but_the_last_are_made_again(monkeypatch: pytest.MonkeyPatch):
    sizes, made = list[int](), loss._losses

    def counted(logits_of, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        sizes.append(len(targets))
        return made(logits_of, hidden, targets)

    monkeypatch.setattr(loss, "_losses", counted)
    monkeypatch.setattr(loss, "MAX_LOGITS", 20)  # two masked tokens at a time, of five
    total = losses(network("llama"), [EXAMPLES], 0).sum()
    assert sizes == [2, 1, 2]
    total.backward()
    assert sizes == [2, 1, 2, 1, 2]


def test_the_head_is_left_as_it_was_also_after_an_error(monkeypatch: pytest.MonkeyPatch):
    model = network("llama")
    monkeypatch.setattr(loss, "_losses", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        losses(model, [EXAMPLES], 0)
    assert "forward" not in vars(model.lm_head)


def test_a_row_numbers_its_examples_and_pads_the_rest():
    batch = lay_out([EXAMPLES[:2], EXAMPLES[1:2]], PADDING)
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1, 2, 2, 2], [1, 1, 1, 0, 0, 0, 0, 0]]
    assert batch["input_ids"].tolist() == [[1, 2, 9, 4, 9, 6, 9, 8], [6, 9, 8, 0, 0, 0, 0, 0]]
    assert batch["labels"][1].tolist() == [IGNORED, 7, *[IGNORED] * 6]
    assert "weights" not in batch


LENGTHS = st.lists(st.integers(1, 100), min_size=1, max_size=30)


@given(LENGTHS, st.integers(1, 30))
def test_examples_are_spread_over_rows_of_about_equal_length(lengths: list[int], num_rows: int):
    num_rows = min(num_rows, len(lengths))
    rows = spread(lengths, num_rows)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    totals = [sum(lengths[index] for index in row) for row in rows]
    assert len(rows) == num_rows
    assert min(totals) > 0
    assert max(totals) - min(totals) <= max(lengths)


def test_positions_begin_anew_with_every_example():
    batch = lay_out([EXAMPLES[:2], EXAMPLES[1:2]], PADDING)
    masked = batch["labels"] != IGNORED
    positions = [[0, 1, 2, 3, 4, 0, 1, 2], [0, 1, 2, 0, 1, 2, 3, 4]]
    found = loss._attention(batch["attention_mask"], None, masked, network("llama"))
    assert found["position_ids"].tolist() == positions
    assert found["attention_mask"][0, 0, 4].tolist() == [True] * 5 + [False] * 3
    found = loss._attention(batch["attention_mask"], None, masked, network("llama", "by example"))
    assert found["position_ids"].tolist() == positions
    assert found["apart"].lengths == [[5, 3], [3, 5]]
    assert found.keys() == {"position_ids", "apart"}


def test_padding_is_the_token_that_is_named():
    assert lay_out([EXAMPLES[:1], EXAMPLES[1:2]], 7)["input_ids"][1].tolist() == [6, 9, 8, 7, 7]
