"""Sources put together: what is held out, what an epoch holds, and what is said of it."""

from pathlib import Path

import pytest
from datasets import Dataset

from dspy_diffusion_infill.engine.vocabulary import Vocabulary
from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.training.corpus import answered, encoded
from dspy_diffusion_infill.training.finetune import prepare
from dspy_diffusion_infill.training.mixing import check_weights, count, fingerprint, mix
from dspy_diffusion_infill.training.settings import Settings
from dspy_diffusion_infill.training.sources import Rows
from dspy_diffusion_infill.training.start import read_start
from tests.training.conftest import write_rows
from tests.training.test_corpus import pairs

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def sources(tmp_path: Path) -> list[str]:
    return [write_rows(tmp_path / f"{name}.jsonl", pairs(40, name + " {}")) for name in ("up", "down")]


def texts(rows: Rows, vocabulary: Vocabulary) -> list[str]:
    return [vocabulary.decode(row["ids"]) for row in rows]


def test_what_was_cut_or_left_out_is_counted(tmp_path: Path, vocabulary: Vocabulary):
    rows = [{"prompt": "a b c d e f g h i j k l", "response": "1"}, {"prompt": "a", "response": "1"}]
    silent = [{"messages": [{"role": "user", "content": "Hi."}]}]
    names = [write_rows(tmp_path / "a.jsonl", rows), write_rows(tmp_path / "b.jsonl", silent)]
    longest = len(encoded(names[:1], vocabulary, 99)[0][1]["ids"]) + 1
    read = encoded(names, vocabulary, longest)
    kept = [answered(rows) for rows in read]
    counts = count(read, kept, mixture := mix(kept, 1))
    assert (len(mixture.held_out), len(mixture.trained)) == (1, 1)
    assert (counts.examples, counts.truncated, counts.dropped, counts.repeated) == (2, 1, 1, 0)
    assert counts.tokens == 2 * longest - 1


def test_sources_are_mixed_by_weight_the_same_way_each_time(sources: list[str], vocabulary: Vocabulary):
    first, again = (
        texts(mix(encoded(sources, vocabulary, 99), 0, weights=[3, 1], seed=1).trained, vocabulary)
        for _ in range(2)
    )
    assert first == again
    share = sum("up" in text for text in first) / len(first)
    assert 0.6 < share < 0.9  # 160 draws of probability .75: four standard deviations are .14
    assert len({text for text in first if "down" in text}) == 40
    for odd in ([1], [1, 0], [1, float("nan")], [1, float("inf")]):
        with pytest.raises(SettingsError, match="weights must be 2 positive numbers"):
            check_weights(odd, sources)


@pytest.mark.parametrize("streaming", [False, True])
def test_held_out_rows_of_weighted_sources_are_not_trained_on(
    sources: list[str], vocabulary: Vocabulary, streaming: bool
):
    read = encoded(sources, vocabulary, 99, streaming=streaming)
    mixture = mix(read, 20, weights=[3, 1], seed=1)
    aside, trained = (texts(rows, vocabulary) for rows in mixture[:2])
    assert [sum(name in text for text in aside) for name in ("up", "down")] == [15, 5]
    assert not set(aside) & set(trained)
    assert len(set(aside)) + len(set(trained)) == 80
    if not streaming:
        counts = count(read, read, mixture)
        assert counts.examples == 20 + len(trained)
        assert counts.repeated == counts.examples - 80
        assert f"{counts.repeated} of them again for the weights" in str(counts)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("weights", [None, [1, 1]])
def test_rows_that_read_as_a_held_out_one_are_not_trained_on(
    tmp_path: Path, vocabulary: Vocabulary, weights: list[float] | None, streaming: bool
):
    rows = pairs(10)
    names = [write_rows(tmp_path / "a.jsonl", rows * 3), write_rows(tmp_path / "b.jsonl", rows[::-1])]
    read = encoded(names, vocabulary, 99, streaming=streaming)
    mixture = mix(read, 4, weights=weights, seed=1)
    aside, trained = (texts(rows, vocabulary) for rows in mixture[:2])
    assert len(aside) == 4
    assert set(trained) == set(texts(read[1], vocabulary)) - set(aside)
    if not streaming:
        counts = count(read, read, mixture)
        assert counts.withheld == 4 * len(set(aside)) - 4
        assert counts.repeated == counts.examples + counts.withheld - 40
        assert f"0 without a response, {counts.withheld} that read as a held-out one left out" in str(counts)


@pytest.mark.parametrize("streaming", [False, True])
def test_data_that_all_read_as_a_held_out_row_are_refused(
    tmp_path: Path, vocabulary: Vocabulary, streaming: bool
):
    read = encoded([write_rows(tmp_path / "a.jsonl", pairs(1) * 5)], vocabulary, 99, streaming=streaming)
    with pytest.raises(SettingsError, match="held_out must leave examples to train on; all others"):
        mix(read, 2)


def test_streams_without_weights_come_in_turns_and_every_row_once(tmp_path: Path, vocabulary: Vocabulary):
    names = [write_rows(tmp_path / f"{name}.jsonl", pairs(number, name + " {}"))
             for name, number in (("up", 9), ("down", 3))]  # fmt: skip
    mixture = mix(encoded(names, vocabulary, 99, streaming=True), 2)
    aside, trained = (texts(rows, vocabulary) for rows in mixture[:2])
    assert ["up" in text for text in aside] == [True, False]
    assert ["up" in text for text in trained] == [True, False, True, False, *[True] * 6]
    assert len({*aside, *trained}) == 12


@pytest.mark.parametrize("streaming", [False, True])
def test_a_source_too_small_for_its_share_of_held_out_rows_is_refused(
    sources: list[str], vocabulary: Vocabulary, streaming: bool
):
    read = encoded(sources, vocabulary, 99, streaming=streaming)
    with pytest.raises(SettingsError, match="held_out must be below 40, the number of examples; got 60"):
        mix(read, 80, weights=[3, 1])


@pytest.mark.parametrize("streaming", [False, True])
def test_data_without_any_response_are_refused(sources: list[str], vocabulary: Vocabulary, streaming: bool):
    kept = [answered(rows) for rows in encoded(sources, vocabulary, 4, streaming=streaming)]
    with pytest.raises(SettingsError, match=r"with a response; got none\. Is each an assistant turn"):
        mix(kept, 0)


def test_a_fingerprint_changes_with_rows_and_with_what_is_masked(sources: list[str], vocabulary: Vocabulary):
    up, down = encoded(sources, vocabulary, 99)
    assert fingerprint([up, down]) == fingerprint(encoded(sources, vocabulary, 99))
    flipped = up.map(lambda row: {"parts": [0] * len(row["parts"])})
    found = {fingerprint(rows) for rows in ([up, down], [down, up], [up], [flipped, down])}
    assert len(found) == 4


def test_a_stream_of_weighted_sources_holds_out_what_it_does_not_train_on(
    sources: list[str], checkpoint: Path
):
    settings = Settings(
        learning_rate=1, batch=4, num_batches=1, max_tokens=64, held_out=8, use_cpu=True, updates=9
    )
    plan = prepare(read_start(str(checkpoint)), sources, settings, weights=[3, 1], streaming=True)
    assert len(set(plan.held_out)) == 8
    assert not {plan.examples[number] for number in range(150)} & set(plan.held_out)


def test_held_out_rows_are_drawn_by_the_seed_and_the_same_each_time(tmp_path: Path, vocabulary: Vocabulary):
    read = encoded([write_rows(tmp_path / "a.jsonl", pairs(40))], vocabulary, 99)
    first, again, other = (texts(mix(read, 5, seed=seed).held_out, vocabulary) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert first != texts(read[0].select(range(5)), vocabulary), "the first rows may be of one kind"


def test_the_seed_mixes_sources(tmp_path: Path, vocabulary: Vocabulary):
    names = [write_rows(tmp_path / f"{name}.jsonl", pairs(40, name + " {}")) for name in ("up", "down")]
    read = encoded(names, vocabulary, 99)
    kinds = [
        ["up" in text for text in texts(mix(read, 0, weights=[1, 1], seed=seed).trained, vocabulary)]
        for seed in (1, 2)
    ]
    assert kinds[0] != kinds[1]


def test_a_fingerprint_tells_where_rows_end():
    one, two = (
        [{"ids": ids, "parts": [1] * len(ids)} for ids in rows] for rows in ([[1, 2], [3]], [[1], [2, 3]])
    )
    assert fingerprint([Dataset.from_list(one)]) != fingerprint([Dataset.from_list(two)])


@pytest.mark.parametrize("held_out", [0, 1, 2])
def test_a_weighted_stream_may_hold_nothing_of_a_source_out(
    tmp_path: Path, vocabulary: Vocabulary, held_out: int
):
    names = [write_rows(tmp_path / f"{name}.jsonl", pairs(40, name + " {}")) for name in ("up", "down")]
    found = mix(encoded(names, vocabulary, 99, streaming=True), held_out, weights=[3, 1])
    assert len(list(found.held_out)) == held_out
