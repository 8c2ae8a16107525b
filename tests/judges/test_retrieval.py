"""BM25 alone on HoVer: what is found, and what of it counts."""

from pathlib import Path

import pytest

from benchmarks.passages import Passages, read_passages
from benchmarks.retrieval import gold, read_claims, run, scores

RAIN, SUN, MOON = ("Rain", "Water falls from clouds."), ("Sun", "A star."), ("Moon", "It orbits the Earth.")


def claim(text: str, *titles: str) -> dict:
    return {"claim": text, "supporting_facts": [[title, 0] for title in titles], "num_hops": len(titles)}


def test_passages_are_found_by_title_and_text_and_by_stems():
    passages = Passages([RAIN, SUN, MOON])
    assert passages.search(["falling", "the moons", "stars"], k=1) == [["Rain"], ["Moon"], ["Sun"]]
    assert len(passages.search(["water"], k=9)[0]) == 3


def test_a_title_that_two_sentences_support_is_one_passage():
    assert gold({"supporting_facts": [["Sun", 0], ["Sun", 2], ["Moon", 1]]}) == {"Sun", "Moon"}


def test_only_the_first_titles_count():
    pairs = [({"a", "b"}, ["a", "c", "b"]), ({"c"}, ["c", "a", "b"])]
    assert scores(pairs, k=2) == {"all_gold": 0.5, "recall": 0.75}
    assert scores(pairs, k=3) == {"all_gold": 1, "recall": 1}


def test_each_number_of_hops_has_its_rows():
    claims = [
        claim("Stars and moons orbit.", "Sun", "Moon"),
        claim("Clouds, stars, moons.", "Rain", "Sun", "Moon"),
    ]
    rows = run(claims, Passages([RAIN, SUN, MOON]), "3 passages")
    assert [(row["hops"], row["k"], row["n"], row["recall"]) for row in rows] == [
        (2, 7, 1, 1), (2, 21, 1, 1), (3, 7, 1, 1), (3, 21, 1, 1)
    ]  # fmt: skip


@pytest.mark.slow
def test_real_claims_find_more_the_deeper_and_less_among_distractors(shared_data: Path):
    claims = read_claims(shared_data)
    assert len(claims) == 3436
    some = claims[::4]
    alone, among = (run(some, read_passages(shared_data, distractors=more), "") for more in (False, True))
    assert [row["n"] for row in alone[::2]] == [179, 435, 245]
    for easier, harder in zip(alone, among, strict=True):
        assert easier["recall"] > harder["recall"] > harder["all_gold"]
        assert easier["recall"] > easier["all_gold"] > harder["all_gold"]
    for shallow, deep in zip(alone[::2], alone[1::2], strict=True):
        assert deep["all_gold"] > shallow["all_gold"]
