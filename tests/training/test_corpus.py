"""From files to encoded examples: forms, cutting, counting, mixing, and drawing by number."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from dspy_diffusion_infill.engine.llada import CHAT
from dspy_diffusion_infill.engine.vocabulary import Vocabulary
from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.prompts.canvas import Message
from dspy_diffusion_infill.training import converting, corpus
from dspy_diffusion_infill.training.corpus import Corpus, Stream, answered, as_example, encoded, truncate
from dspy_diffusion_infill.training.data import Example, encode
from tests.training.conftest import write_rows

pytestmark = pytest.mark.usefixtures("own_cache")

EXAMPLE = Example(
    ids=tuple(range(10)),
    maskable=(False, True, True, False, True, True, True, False, True, True),
    response=(False,) * 8 + (True, True),
)


def test_the_longest_part_of_the_prompt_is_cut_at_its_end_and_the_response_last():
    assert truncate(EXAMPLE, 10) is EXAMPLE
    assert truncate(EXAMPLE, 8).ids == (0, 1, 2, 3, 4, 7, 8, 9)
    assert truncate(EXAMPLE, 6).ids == (0, 1, 3, 7, 8, 9)
    assert truncate(EXAMPLE, 4).ids == (0, 3, 7, 8)
    assert truncate(EXAMPLE, 8).response == (False,) * 6 + (True, True)


def test_instructions_are_cut_after_the_rest_of_the_prompt():
    flags = (False, True, True, True, True, False, True, True)
    example = Example(tuple(range(8)), flags, (False,) * 7 + (True,))
    assert truncate(example, 7).ids == (0, 1, 2, 3, 5, 6, 7)
    assert truncate(example, 7, instructed=True).ids == (0, 1, 2, 3, 4, 5, 7)
    assert truncate(example, 5, instructed=True).ids == (0, 1, 2, 5, 7)


@pytest.mark.parametrize(
    ("system", "user", "whole"), [("Rate it. " * 9, "Bad.", "Rate it. " * 9), (" ", "A film. " * 9, "Dull.")]
)
def test_a_system_turn_that_says_something_is_cut_after_the_others(
    system: str, user: str, whole: str, tmp_path: Path, vocabulary: Vocabulary
):
    texts = [("system", system), ("user", user), ("assistant", "1"), ("user", "Dull."), ("assistant", "2")]
    row = {"messages": [{"role": role, "content": text} for role, text in texts]}
    source = write_rows(tmp_path / "a.jsonl", [row])
    length = len(next(iter(encoded([source], vocabulary, 10**6, streaming=True)[0]))["ids"])
    cut = next(iter(encoded([source], vocabulary, length - 1, streaming=True)[0]))
    assert len(cut["ids"]) == length - 1
    assert whole.strip() in vocabulary.decode(cut["ids"])


@given(st.lists(st.sampled_from("gpr"), min_size=1, max_size=40), st.integers(1, 40))
def test_a_cut_example_fits_and_keeps_its_order(parts: list[str], max_tokens: int):
    flags = tuple(part != "g" for part in parts), tuple(part == "r" for part in parts)
    cut = truncate(Example(tuple(range(len(parts))), *flags), max_tokens)
    assert len(cut.ids) == min(len(parts), max_tokens)
    assert list(cut.ids) == sorted(cut.ids)
    assert cut.maskable == tuple(flags[0][at] for at in cut.ids)
    assert cut.response == tuple(flags[1][at] for at in cut.ids)


def pairs(number: int, prompt: str = "Say {}.") -> list[dict]:
    return [{"prompt": prompt.format(n), "response": str(n)} for n in range(number)]


def test_an_epoch_holds_every_example_once_and_the_next_in_another_order(
    tmp_path: Path, vocabulary: Vocabulary
):
    (rows,) = encoded([write_rows(tmp_path / "a.jsonl", pairs(12))], vocabulary, 99)
    corpus = Corpus(rows, seed=3)
    first, second = ([corpus[12 * epoch + n] for n in range(12)] for epoch in (0, 1))
    assert Counter(first) == Counter(second)
    assert len(set(first)) == 12
    assert first != second
    assert corpus[5] == first[5]


def test_a_stream_gives_the_same_example_for_a_number_however_it_is_asked(
    tmp_path: Path, vocabulary: Vocabulary
):
    (rows,) = encoded([write_rows(tmp_path / "a.jsonl", pairs(12))], vocabulary, 99, streaming=True)
    one, other = (Stream(rows, seed=1, kept=4) for _ in range(2))
    whole = [one[number] for number in range(20)]
    assert len(set(whole[:12])) == 12
    assert whole[12] in whole[:12]
    assert [other[number] for number in range(1, 20, 2)] == whole[1::2]
    assert [other[number] for number in (3, 2, 19)] == [whole[3], whole[2], whole[19]]


@pytest.mark.parametrize("response", ["", " \n"])
def test_a_blank_response_is_none(response: str, tmp_path: Path, vocabulary: Vocabulary):
    rows = [*pairs(2), {"prompt": "Rate it.", "response": response}]
    (read,) = encoded([write_rows(tmp_path / "a.jsonl", rows)], vocabulary, 64)
    assert (len(read), len(answered(read))) == (3, 2)


def test_a_stream_without_any_response_is_refused(tmp_path: Path, vocabulary: Vocabulary):
    (rows,) = encoded([write_rows(tmp_path / "a.jsonl", pairs(3))], vocabulary, 4, streaming=True)
    with pytest.raises(SettingsError, match=r"with a response; got none\. Is each an assistant turn"):
        Stream(answered(rows), seed=0, kept=1)[0]


def test_rows_are_encoded_again_when_the_package_has_changed(
    tmp_path: Path, vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch
):
    source, seen = write_rows(tmp_path / "a.jsonl", pairs(3)), []
    encode = corpus.encode
    monkeypatch.setattr(corpus, "encode", lambda *given: (seen.append(1), encode(*given))[1])
    for version, times in (("one", 3), ("one", 3), ("other", 6)):
        monkeypatch.setattr(converting, "code", lambda version=version: version)
        encoded([source], vocabulary, 99)
        assert len(seen) == times


def test_rows_are_encoded_once_for_a_vocabulary_and_again_for_another(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
):
    source, seen = write_rows(tmp_path / "a.jsonl", pairs(3)), []
    encode = corpus.encode
    monkeypatch.setattr(corpus, "encode", lambda *given: (seen.append(1), encode(*given))[1])
    text = tokenizer.to_str()
    for words, chat, max_tokens, times in (
        (text, CHAT, 99, 3),
        (text, CHAT, 99, 3),
        (text, replace(CHAT, header_text="\n"), 99, 6),
        (text.replace('"ignore_merges":false', '"ignore_merges":true'), CHAT, 99, 9),
        (text, CHAT, 98, 12),
        (text, CHAT, 99, 12),
    ):
        encoded([source], Vocabulary(Tokenizer.from_str(words), chat, 600), max_tokens)
        assert len(seen) == times
    write_rows(tmp_path / "a.jsonl", pairs(4))
    encoded([source], Vocabulary(tokenizer, CHAT, 600), 99)
    assert len(seen) == 16


def test_the_seed_orders_an_epoch_and_a_stream(tmp_path: Path, vocabulary: Vocabulary):
    source = write_rows(tmp_path / "a.jsonl", pairs(12))
    (rows,), (streamed,) = (encoded([source], vocabulary, 99, streaming=flag) for flag in (False, True))
    orders = [[Corpus(rows, seed)[n] for n in range(12)] for seed in (3, 4)]
    assert orders[0] != orders[1]
    streams = [Stream(streamed, seed, kept=12) for seed in (3, 4)]
    orders = [[stream[n] for n in range(12)] for stream in streams]
    assert orders[0] != orders[1]


def test_a_stream_goes_back_any_number_of_examples(tmp_path: Path, vocabulary: Vocabulary):
    (rows,) = encoded([write_rows(tmp_path / "a.jsonl", pairs(12))], vocabulary, 99, streaming=True)
    stream = Stream(rows, seed=1, kept=4)
    whole = [stream[number] for number in range(10)]
    for back in range(1, 10):
        assert stream[9] == whole[9]
        assert stream[10 - back] == whole[10 - back]


def test_a_stream_counts_what_it_read_and_what_of_it_was_cut(tmp_path: Path, vocabulary: Vocabulary):
    rows = [{"prompt": "word " * (30 if n % 3 == 0 else 1), "response": "1"} for n in range(12)]
    (read,) = encoded([write_rows(tmp_path / "a.jsonl", rows)], vocabulary, 40, streaming=True)
    stream = Stream(read, seed=1, kept=2)
    for _ in range(2):  # the second time it begins anew
        for number in range(12):
            stream[number]
        assert (stream.num_read, stream.truncated) == (12, 4)


def test_a_stored_example_is_the_one_that_was_encoded(tmp_path: Path, vocabulary: Vocabulary):
    ((row,),) = encoded([write_rows(tmp_path / "a.jsonl", pairs(1))], vocabulary, 99)
    turns = [Message.text("user", "Say 0."), Message.text("assistant", "0")]
    assert as_example(row) == encode(turns, vocabulary)
