"""Which tokens of a conversation may be masked, and which are the response."""

from collections import Counter

import pytest
import torch

from dspy_diffusion_infill.engine import dream, llada
from dspy_diffusion_infill.engine.vocabulary import ChatFormat, Vocabulary
from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.prompts.canvas import Message
from dspy_diffusion_infill.training.data import Example, collate, encode, mask, noise
from dspy_diffusion_infill.training.loss import IGNORED
from dspy_diffusion_infill.training.masking import Objective
from tests.engine.checkpoints import make_tokenizer

TURNS = [
    Message.text("system", "Rate the text."),
    Message.text("user", "Bad film."),
    Message.text("assistant", "1"),
]


def text_of(vocabulary: Vocabulary, example: Example, flags: tuple[bool, ...]) -> list[int]:
    return [token for token, flag in zip(example.ids, flags, strict=True) if flag]


def test_contents_may_be_masked_and_headers_may_not(vocabulary: Vocabulary):
    example = encode(TURNS, vocabulary)
    end = vocabulary.lay_out(TURNS).ids[-1]
    assert (
        vocabulary.decode(text_of(vocabulary, example, example.maskable)[:-1]) == "Rate the text.Bad film.1"
    )
    assert text_of(vocabulary, example, example.maskable)[-1] == end
    assert list(example.ids) == vocabulary.lay_out(TURNS).ids


def test_the_response_is_the_answer_and_the_token_that_ends_it(vocabulary: Vocabulary):
    example = encode(TURNS, vocabulary)
    assert text_of(vocabulary, example, example.response) == [*vocabulary.encode("1"), example.ids[-1]]


@pytest.mark.parametrize("padding", [0, 2])
def test_a_model_whose_turns_end_in_no_token_learns_to_stop_behind_its_last_answer(padding: int):
    tokenizer = make_tokenizer(("<|startoftext|>", "<|endoftext|>", "<|mdm_mask|>"))
    base = Vocabulary(tokenizer, llada.chat_format(tokenizer, {}), 400)
    example = encode([*TURNS, *TURNS[1:]], base, padding=padding)
    stops = [base.padding_id] * (1 + padding)
    assert text_of(base, example, example.response) == [*base.encode("1"), *base.encode("1"), *stops]
    assert list(example.ids[-2 - padding :]) == [*base.encode("1"), *stops]
    assert base.decode(example.ids[1 : -1 - padding]) == (
        "Rate the text.\n\nBad film.\n\n1\n\nBad film.\n\n1"
    )
    asked = encode(TURNS[:2], base)
    assert list(asked.ids) == base.lay_out(TURNS[:2]).ids


@pytest.mark.parametrize("chat", [llada.CHAT, dream.CHAT], ids=["llada", "dream"])
def test_a_conversation_without_turns_has_nothing_to_learn(chat: ChatFormat):
    vocabulary = Vocabulary(make_tokenizer(chat.special_tokens), chat, 400)
    example = encode([], vocabulary)
    assert list(example.ids) == vocabulary.lay_out([]).ids
    assert not any((*example.maskable, *example.response))


def test_a_given_role_is_never_masked(vocabulary: Vocabulary):
    example = encode(TURNS, vocabulary, given=frozenset({"user"}))
    assert vocabulary.decode(text_of(vocabulary, example, example.maskable)[:-1]) == "Rate the text.1"


def test_padding_is_trained_on_only_when_asked_for(vocabulary: Vocabulary):
    plain, padded = encode(TURNS, vocabulary), encode(TURNS, vocabulary, padding=2)
    assert padded.ids == (*plain.ids, *[vocabulary.padding_id] * 2)
    assert padded.response == (*plain.response, True, True)
    assert padded.maskable == (*plain.maskable, True, True)


def test_a_batch_holds_masks_where_it_has_labels_and_is_clean_elsewhere(vocabulary: Vocabulary):
    examples = [encode(TURNS, vocabulary), encode(TURNS[:2], vocabulary)]
    batch = collate(examples, ["ro", "fs"], 3, vocabulary)
    ids, labels, attention = batch["input_ids"], batch["labels"], batch["attention_mask"]
    assert attention.sum(1).tolist() == [len(example.ids) for example in examples]
    masked = labels != IGNORED
    assert (ids[masked] == vocabulary.mask_token_id).all()
    for row, example in enumerate(examples):
        clean = torch.tensor(example.ids)
        seen = torch.where(masked[row], labels[row], ids[row])[: len(clean)]
        assert torch.equal(seen, clean)
        assert not masked[row, len(clean) :].any()
    assert not masked[0, : sum(not flag for flag in examples[0].response)].any(), (
        "ro masks the response alone"
    )


def test_the_noise_of_a_row_depends_on_its_seed_alone(vocabulary: Vocabulary):
    example = encode(TURNS, vocabulary)
    assert torch.equal(mask(example, "fs", 5), mask(example, "fs", 5))
    assert any(not torch.equal(mask(example, "fs", 5), mask(example, "fs", seed)) for seed in range(6, 12))


@pytest.mark.parametrize("objective", ["fs", "ro"])
def test_weighed_by_inverse_t_every_count_of_masks_weighs_as_much_as_another(objective: Objective):
    """LLaDA's Eq. 6: of n tokens, the mean loss with k masks weighs 1 / n for each k."""
    flags = (False, True, True, True)
    example, found = Example((9, 10, 11, 12), flags, flags), Counter[int]()
    for seed in range(6000):
        noised = noise(example, objective, seed, 5, weighting="inverse_t")
        assert noised.weights is not None
        assert float(noised.weights.sum()) == pytest.approx(3)
        found[int((noised.labels != IGNORED).sum())] += 1
    assert sorted(found) == [1, 2, 3]
    assert all(abs(count - 2000) < 220 for count in found.values())  # six standard deviations


def test_an_unknown_objective_is_refused(vocabulary: Vocabulary):
    with pytest.raises(SettingsError, match=r"objective must be 'fs', 'ro' or 'rest'; got 'both'\."):
        mask(encode(TURNS, vocabulary), "both", 0)  # pyright: ignore[reportArgumentType]
