"""Held-out losses, prompts and responses apart, on a model whose losses are known."""

import logging
import math

import pytest
import torch
from transformers import LlamaForCausalLM

from dspy_diffusion_infill.engine.vocabulary import Vocabulary
from dspy_diffusion_infill.prompts.canvas import Message
from dspy_diffusion_infill.training import monitor
from dspy_diffusion_infill.training.data import Example, encode
from dspy_diffusion_infill.training.loss import IGNORED
from dspy_diffusion_infill.training.monitor import HeldOut


@pytest.fixture
def held_out(vocabulary: Vocabulary) -> HeldOut:
    turns = [("made-up review " * (n % 3 + 1), str(n)) for n in range(11)]
    examples = [
        encode([Message.text("user", ask), Message.text("assistant", reply)], vocabulary)
        for ask, reply in turns
    ]
    return HeldOut(examples, vocabulary, shift=0, seed=0)


def test_a_model_that_knows_nothing_is_as_perplexed_as_it_has_tokens(
    model: LlamaForCausalLM, held_out: HeldOut
):
    torch.nn.init.zeros_(model.get_output_embeddings().weight)
    found = held_out(model)
    size = model.config.vocab_size
    for part in ("prompt", "response"):
        assert found[f"{part}_loss"] == pytest.approx(math.log(size), rel=1e-5)
        assert found[f"{part}_perplexity"] == pytest.approx(size, rel=1e-4)


def test_a_perplexity_bounds_that_of_a_model_whose_distribution_is_known(
    model: LlamaForCausalLM, vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch
):
    """Responses are AA or BB: log 2 for two tokens. One mask costs nothing, two cost log 2 each."""

    def losses(model: object, ids: torch.Tensor, labels: torch.Tensor, *_: object, **__: object):
        labels = labels.view(-1, 3)  # an example a row
        alone = (labels != IGNORED).sum(1, keepdim=True) == 1
        return torch.where(alone, 0.0, math.log(2)).expand_as(labels)[labels != IGNORED]

    monkeypatch.setattr(monitor, "masked_losses", losses)
    response = (False, True, True)
    examples = [Example((5, 20 + n % 2, 20 + n % 2), response, response) for n in range(400)]
    found = HeldOut(examples, vocabulary, shift=0, seed=0, num_samples=0)(model)
    assert found["response_perplexity"] == pytest.approx(math.sqrt(2), rel=1e-2)  # levels are stratified


def test_prompts_are_masked_beside_clean_responses_and_the_other_way_round(
    held_out: HeldOut, vocabulary: Vocabulary
):
    words = set(vocabulary.encode("made-up review made-up"))
    end = set(vocabulary.lay_out([Message.text("user", "")]).ids[-1:])
    for part, other in (("prompt", "response"), ("response", "prompt")):
        masked = {label for batch in held_out.batches[part] for label in batch["labels"].flatten().tolist()}
        seen = {token for batch in held_out.batches[other] for token in batch["input_ids"].flatten().tolist()}
        masked -= {IGNORED}
        assert masked <= words if part == "prompt" else not masked & words
        assert masked <= seen | end, "what one masks the other shows"


def test_measuring_shows_infilled_prompts_and_leaves_the_model_as_it_was(
    model: LlamaForCausalLM, held_out: HeldOut, caplog: pytest.LogCaptureFixture
):
    model.train()
    flags = [value.requires_grad for value in model.parameters()]
    with caplog.at_level(logging.INFO, "dspy_diffusion_infill"):
        first, second = held_out(model), held_out(model)
    assert first == second
    assert model.training
    assert [value.requires_grad for value in model.parameters()] == flags
    assert sum("infilled '" in record.message for record in caplog.records) == 4
    assert "where the text has '" in caplog.text


@pytest.fixture
def example(vocabulary: Vocabulary) -> Example:
    ask = "first made-up made-up made-up made-up made-up made-up review of a film that nobody saw"
    return encode([Message.text("user", ask), Message.text("assistant", "4")], vocabulary)


def test_a_shifted_model_is_measured_and_infills_one_place_to_the_left(
    model: LlamaForCausalLM, vocabulary: Vocabulary, example: Example, monkeypatch: pytest.MonkeyPatch
):
    shifts: list[int] = []
    made = monitor.masked_losses

    def seen(*given, shift: int = 0):
        shifts.append(shift)
        return made(*given, shift=shift)

    monkeypatch.setattr(monitor, "masked_losses", seen)
    HeldOut([example], vocabulary, shift=1, seed=0)(model)
    assert shifts == [1, 1]
    ids, everything = torch.tensor([example.ids]), torch.ones(1, len(example.ids), dtype=torch.bool)
    wanted = torch.arange(len(example.ids))[None] == 5
    found = monitor._Trained(model, vocabulary, 1).logits(ids, everything, wanted)
    torch.testing.assert_close(found[0], model(input_ids=ids).logits[0, 4].float())


def test_a_sample_is_of_the_middle_of_a_prompt_and_says_what_it_read(
    model: LlamaForCausalLM, vocabulary: Vocabulary, example: Example
):
    held_out = HeldOut([example], vocabulary, shift=0, seed=0)
    prompt = [token for token, flag in zip(example.ids, monitor._prompt(example), strict=True) if flag]
    start = len(prompt) // 2 - monitor.WINDOW // 2
    middle = vocabulary.decode(prompt[start : start + monitor.WINDOW])
    assert held_out.sample(model, example).endswith(f"where the text has {middle!r}")


def test_examples_without_a_prompt_are_measured_and_not_infilled(
    model: LlamaForCausalLM, vocabulary: Vocabulary, example: Example
):
    silent = encode([Message.text("assistant", "4")], vocabulary)
    held_out = HeldOut([silent, silent, example], vocabulary, shift=0, seed=0)
    assert held_out.samples == [example]
    assert set(HeldOut([silent], vocabulary, shift=0, seed=0)(model)) == {
        "response_loss",
        "response_perplexity",
    }


def test_a_perplexity_beyond_all_numbers_is_a_number(
    model: LlamaForCausalLM, vocabulary: Vocabulary, example: Example, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        monitor,
        "masked_losses",
        lambda model, ids, labels, *_, **__: torch.full(labels.shape, 1e4)[labels != -100],
    )
    found = HeldOut([example], vocabulary, shift=0, seed=0, num_samples=0)(model)
    assert math.isfinite(found["prompt_perplexity"])


def test_the_masks_are_the_same_in_every_process_and_differ_by_seed(vocabulary: Vocabulary, example: Example):
    """A run that goes on compares with what was measured before it was cut short."""

    def labels(seed: int) -> list:
        batches = HeldOut([example] * 3, vocabulary, shift=0, seed=seed).batches["prompt"]
        return [batch["labels"].tolist() for batch in batches]

    assert labels(0) == labels(0) != labels(1)
