"""What an update sees depends on its number alone, however it is shared out."""

from collections import Counter
from random import Random

import pytest

from dspy_diffusion_infill.engine.vocabulary import Vocabulary
from dspy_diffusion_infill.prompts.canvas import Message
from dspy_diffusion_infill.training.data import Example, encode, mask, noise
from dspy_diffusion_infill.training.loss import IGNORED
from dspy_diffusion_infill.training.masking import stratified
from dspy_diffusion_infill.training.updates import Updates


@pytest.fixture
def examples(vocabulary: Vocabulary) -> list[Example]:
    return [
        encode([Message.text("user", "word " * (n % 7 + 1)), Message.text("assistant", str(n))], vocabulary)
        for n in range(64)
    ]


def rows(updates: Updates, update: int) -> list[tuple]:
    """Every example of an update with its masks, in any order: its ids, its labels."""
    found = []
    for number in range(update * updates.num_batches, (update + 1) * updates.num_batches):
        batch = updates(number)
        for row in range(len(batch["input_ids"])):
            for example in range(1, int(batch["attention_mask"][row].max()) + 1):
                place = batch["attention_mask"][row] == example
                found.append(
                    tuple(tuple(batch[name][row][place].tolist()) for name in ("input_ids", "labels"))
                )
    return sorted(found)


@pytest.mark.parametrize("num_batches", [1, 3, 8])
def test_how_an_update_is_shared_out_changes_nothing(
    examples: list[Example], vocabulary: Vocabulary, num_batches: int
):
    whole = Updates(examples, vocabulary, "fs", batch=8, num_batches=1, seed=5)
    shared = Updates(examples, vocabulary, "fs", batch=8, num_batches=num_batches, seed=5)
    assert rows(shared, 1) == rows(whole, 1)
    assert rows(shared, 0) == rows(whole, 0) != rows(whole, 1)


def test_another_seed_or_stage_masks_other_tokens(examples: list[Example], vocabulary: Vocabulary):
    settings = {"batch": 8, "num_batches": 2}
    base = rows(Updates(examples, vocabulary, "fs", seed=5, **settings), 0)
    assert rows(Updates(examples, vocabulary, "fs", seed=6, **settings), 0) != base
    assert rows(Updates(examples, vocabulary, "ro", seed=5, **settings), 0) != base
    assert rows(Updates(examples, vocabulary, "fs", seed=5, stage=2, **settings), 0) != base


def test_response_only_updates_mask_responses_but_for_the_share_that_is_mixed_in(
    examples: list[Example], vocabulary: Vocabulary
):
    clean, mixed = (
        Updates(examples, vocabulary, "ro", batch=64, num_batches=1, seed=5, mix=mix) for mix in (0.0, 0.5)
    )

    words = set(vocabulary.encode("word word"))

    def in_prompts(updates: Updates) -> int:
        return sum(bool(words & set(one.labels.tolist())) for one in updates.noised(0))

    assert in_prompts(clean) == 0
    assert 10 < in_prompts(mixed) < 54  # 64 draws of one half, few of which mask no prompt token by chance


def test_stratified_noise_levels_have_one_in_every_part():
    levels = stratified(8, Random(0))
    assert sorted(int(8 * level) for level in levels) == list(range(8))
    assert levels != sorted(levels)


def test_stratified_updates_mask_from_few_to_nearly_all(vocabulary: Vocabulary):
    long = encode([Message.text("user", "word " * 39), Message.text("assistant", "1")], vocabulary)
    updates = Updates([long] * 8, vocabulary, "fs", batch=8, num_batches=1, seed=5, stratify=True)
    counts = sorted(int((one.labels != IGNORED).sum()) for one in updates.noised(0))
    maskable = sum(long.maskable)
    assert [8 * number // maskable for number in counts] == pytest.approx(list(range(8)), abs=1)


def test_weights_of_an_example_add_up_to_what_may_be_masked(examples: list[Example]):
    for objective, flags in (("fs", "maskable"), ("ro", "response")):
        for seed, example in enumerate(examples):
            found = noise(example, objective, seed, 1, weighting="inverse_t").weights
            assert found is not None
            assert float(found.sum()) == pytest.approx(sum(getattr(example, flags)), rel=1e-6)
            assert len(set(found.tolist()) - {0.0}) == 1


def test_updates_take_the_examples_one_after_another_each_once(
    examples: list[Example], vocabulary: Vocabulary
):
    updates = Updates(examples, vocabulary, "fs", batch=8, num_batches=2, seed=5)
    seen = Counter(
        tuple(one.ids.where(one.labels == IGNORED, one.labels).tolist())
        for update in range(8)
        for one in updates.noised(update)
    )
    assert seen == Counter(example.ids for example in examples)


def test_the_losses_of_an_update_are_weighed_as_it_is_told(examples: list[Example], vocabulary: Vocabulary):
    for weighting, weighed in (("mean", False), ("inverse_t", True)):
        updates = Updates(examples, vocabulary, "ro", batch=8, num_batches=2, seed=5, weighting=weighting)
        assert ("weights" in updates(0)) is weighed


def test_full_sequence_updates_mask_only_responses_in_the_share_that_is_mixed_in(
    examples: list[Example], vocabulary: Vocabulary
):
    words = set(vocabulary.encode("word word"))
    updates = Updates(examples, vocabulary, "fs", batch=64, num_batches=1, seed=5, mix=1.0)
    assert not any(words & set(one.labels.tolist()) for one in updates.noised(0))


def test_stratified_levels_reach_responses(vocabulary: Vocabulary):
    """Of levels spread evenly, half of all tokens are masked: within 2 %, not 10."""
    long = encode([Message.text("user", "word"), Message.text("assistant", "word " * 199)], vocabulary)
    updates = Updates([long] * 8, vocabulary, "ro", batch=8, num_batches=1, seed=5, stratify=True)
    shares = sorted(int((one.labels != IGNORED).sum()) / sum(long.response) for one in updates.noised(0))
    assert all(abs(share - (part + 0.5) / 8) < 0.17 for part, share in enumerate(shares))
    assert abs(sum(shares) / 8 - 0.5) < 0.1


@pytest.mark.parametrize("level", [0.1, 0.9])
def test_responses_are_masked_at_the_level_they_are_given(vocabulary: Vocabulary, level: float):
    long = encode([Message.text("user", "word"), Message.text("assistant", "word " * 400)], vocabulary)
    share = int(mask(long, "ro", 3, level).sum()) / sum(long.response)
    assert abs(share - level) < 0.09  # six standard errors
