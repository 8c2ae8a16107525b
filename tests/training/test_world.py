"""Nothing that is held out reaches a training text."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from dspy_diffusion_infill.demo import written_reviews
from dspy_diffusion_infill.engine.llada import CHAT
from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.training import embedded
from dspy_diffusion_infill.training.data import Example
from dspy_diffusion_infill.training.embedded import build
from dspy_diffusion_infill.training.grammar import NUM_GRADES, Reviews
from dspy_diffusion_infill.training.loss import IGNORED
from dspy_diffusion_infill.training.schemes import (
    IMPRESSIONS,
    NUM_PAIRED,
    ORACLE,
    SCHEMES,
    VAGUE,
    WORDINGS,
    Instruction,
    Scheme,
    held_out_schemes,
    nearest_training_instruction,
    training_instructions,
)
from dspy_diffusion_infill.training.world import PARTS, RealReviews, Stage, World
from tests.training.conftest import TINY


def test_a_scheme_labels_grades_from_worst_to_best():
    assert [Scheme(("e", "d", "c", "b", "a")).label(grade) for grade in range(5)] == ["e", "d", "c", "b", "a"]
    assert [Scheme(("0", "1")).label(grade) for grade in Scheme(("0", "1")).grades] == ["0", "0", "1", "1"]


def test_two_ends_name_one_scheme():
    ends = [(scheme.worst, scheme.best) for scheme in SCHEMES]
    assert len(set(ends)) == len(ends)


def test_held_out_schemes_are_a_twentieth_and_their_mirror_images_are_taught():
    held_out = held_out_schemes()
    assert 0.03 < len(held_out) / len(SCHEMES) < 0.07
    taught = {instruction.scheme for instruction in training_instructions()}
    assert not taught & set(held_out)
    assert all(Scheme(scheme.labels[::-1]) in taught for scheme in held_out)


def test_schemes_of_one_direction_are_taught_last():
    schemes = list(dict.fromkeys(one.scheme for one in training_instructions()))
    held_out = set(held_out_schemes())
    lonely = [scheme.one_way for scheme in schemes]
    assert lonely == [False] * NUM_PAIRED + [True] * len(held_out)


def test_no_training_instruction_says_what_a_held_out_one_says():
    texts = {instruction.text for instruction in training_instructions()}
    held_out = {Instruction(wording, scheme).text for scheme in held_out_schemes() for wording in WORDINGS}
    assert not texts & held_out
    assert VAGUE not in texts


def test_every_label_of_a_held_out_scheme_is_taught_in_another():
    taught = {label for instruction in training_instructions() for label in instruction.scheme.labels}
    assert {label for scheme in held_out_schemes() for label in scheme.labels} <= taught


def test_the_nearest_instruction_is_one_of_training_and_nearly_the_same():
    oracle = Instruction(ORACLE, held_out_schemes()[0]).text
    nearest = nearest_training_instruction(oracle)
    assert not nearest.held_out
    assert nearest.text != oracle


def test_sentences_are_seeded_and_of_the_grade_asked_for():
    one, same = (Reviews(Random(3)) for _ in range(2))
    drawn = [one.draw(grade % NUM_GRADES) for grade in range(200)]
    assert drawn == [same.draw(grade % NUM_GRADES) for grade in range(200)]
    assert [grade for _, grade in drawn] == [number % NUM_GRADES for number in range(200)]
    assert len({text for text, _ in drawn}) > 190


def test_written_sentences_are_many_balanced_and_apart():
    dev, test = written_reviews("dev"), written_reviews("test")
    assert len(test) >= 300
    assert {text for text, _ in dev}.isdisjoint(text for text, _ in test)
    counts = [sum(grade == wanted for _, grade in test) for wanted in range(NUM_GRADES)]
    assert len(set(counts)) == 1


def test_no_written_sentence_can_be_drawn_from_the_grammar():
    """A million draws are cheap to imagine and dear to make: ten thousand are compared."""
    reviews = Reviews(Random(0))
    drawn = {reviews.draw()[0] for _ in range(10_000)}
    assert drawn.isdisjoint(text for text, _ in written_reviews("test"))


def test_an_update_draws_the_same_batch_whenever_it_is_asked(world: World):
    stage = Stage(name="fs", num_updates=1, learning_rate=1e-3, objectives=("fs", "ro"), real_share=0.5)
    one, same, next_one = (world.batch(stage, 300, 0, update) for update in (7, 7, 8))
    assert all(one[name].equal(same[name]) for name in one)
    assert one["labels"].shape != next_one["labels"].shape or not one["labels"].equal(next_one["labels"])


def test_the_parts_of_an_update_are_its_shorter_and_its_longer_rows(world: World):
    stage = Stage(name="all", num_updates=1, learning_rate=1e-3, shots=(1,))
    shorter, longer = (world.batch(stage, 2000, 0, part)["attention_mask"].sum(1) for part in range(PARTS))
    assert len(shorter) + len(longer) == 2000 // 40
    assert shorter.max() <= longer.min()


def test_a_stage_may_take_the_first_schemes_and_wordings_alone():
    few = training_instructions(num_schemes=4, num_wordings=2)
    assert {one.wording for one in few} == set(WORDINGS[:2])
    assert len({one.scheme for one in few}) <= 4
    assert few == [one for one in training_instructions(4) if one.wording in WORDINGS[:2]]


def test_one_review_gets_an_impression_and_a_rating_and_several_get_ratings(world: World):
    stage = Stage(name="all", num_updates=1, learning_rate=1e-3, num_schemes=1, num_wordings=1, padding=0)
    scheme = training_instructions(1)[0].scheme
    one, several = (_replies(world, world._row(Random(0), shots, stage)) for shots in (1, 4))
    assert one in {f"{IMPRESSIONS[grade]}\n{scheme.label(grade)}" for grade in range(NUM_GRADES)}
    assert set(several.split()) <= set(scheme.labels)


def test_an_impression_that_is_given_is_never_masked_and_the_rating_is(world: World):
    stage = Stage(name="all", num_updates=1, learning_rate=1e-3, num_schemes=1, num_wordings=1, padding=0)
    row, given = (world._row(Random(0), 1, replace(stage, impression_given=share)) for share in (0.0, 1.0))
    assert given.ids == row.ids
    scheme = training_instructions(1)[0].scheme
    assert _replies(world, given) in scheme.labels
    learned = [a and not b for a, b in zip(row.maskable, given.maskable, strict=True)]
    opening = world.vocabulary.decode([id for id, flag in zip(row.ids, learned, strict=True) if flag])
    assert opening.strip() in IMPRESSIONS


def test_a_scale_of_one_direction_is_shown_where_its_other_direction_would_say_the_same(world: World):
    """A reply about it is a mixed review's, the middle label, and its impression is not a lesson."""
    stage = Stage(name="any", num_updates=1, learning_rate=1e-3, num_wordings=2, padding=0, given_share=0.0)
    one_way = {one.text: one.scheme for one in training_instructions(None, 2) if one.scheme.one_way}
    found = 0
    for number in range(300):
        row = world._row(Random(number), 1, stage)
        text = world.vocabulary.decode(row.ids)
        for scheme in (scheme for said, scheme in one_way.items() if said in text):
            found += 1
            assert f"{IMPRESSIONS[2]}\n{scheme.labels[len(scheme.labels) // 2]}" in text
            assert _replies(world, row) == scheme.labels[len(scheme.labels) // 2]
    assert found > 5


def test_ratings_that_are_given_stay_in_view_of_rows_with_several_reviews_alone(world: World):
    stage = Stage(
        name="any", num_updates=1, learning_rate=1e-3, given_share=1.0, answers_given=1.0, padding=0
    )
    several = world._row(Random(0), 4, stage)
    alone = world._row(Random(0), 1, stage)
    assert not any(may and answers for may, answers in zip(several.maskable, several.response, strict=True))
    assert any(several.maskable), "the instruction may be masked"
    assert any(several.response), "response-only masking still has a response"
    assert all(may for may, answers in zip(alone.maskable, alone.response, strict=True) if answers)


def test_examples_that_do_not_see_the_instruction_are_all_given(world: World):
    stage = Stage(
        name="any", num_updates=1, learning_rate=1e-3, shots=(4,), objectives=("ro",), blind_share=1.0
    )
    batch = world.batch(stage, 400, 0, 0)
    for ids, labels, blind in zip(batch["input_ids"], batch["labels"], batch["blind"], strict=True):
        start = int(blind.int().argmax())
        assert (labels != IGNORED).any()
        assert not (labels != IGNORED)[start:].any()
        before, text = (world.vocabulary.decode(part.tolist()) for part in (ids[:start], ids[start:]))
        assert text.count("user") == 4
        assert text.startswith(CHAT.header[0])
        assert before.endswith(CHAT.end[0])
    assert "blind" not in world.batch(replace(stage, blind_share=0.0), 400, 0, 0)


def test_every_other_update_is_rehearsed(world: World):
    """An update of the rehearsal is the one that the rehearsed stage draws by that number."""
    earlier = Stage(name="earlier", num_updates=2, learning_rate=1e-3, shots=(1,))
    alone = Stage(name="later", num_updates=4, learning_rate=1e-3, shots=(2,))
    both = replace(alone, rehearsal=earlier)

    def ids(stage: Stage, number: int) -> list:
        return world.batch(stage, 300, 0, number)["input_ids"].tolist()

    drawn = [ids(both, number) for number in range(4 * PARTS)]
    sources = [alone, earlier, alone, earlier]
    assert drawn == [
        ids(source, PARTS * n + part) for n, source in enumerate(sources) for part in range(PARTS)
    ]


def _replies(world: World, row: Example) -> str:
    """What is answered in a row, one reply a turn."""
    ids = [id for id, flag in zip(row.ids, row.response, strict=True) if flag]
    return world.vocabulary.decode(ids).replace(CHAT.end[0], " ").strip()


def test_a_missing_data_file_is_named(tmp_path: Path):
    with pytest.raises(SettingsError, match=r"data must be a folder that holds sst5_train\.jsonl; got"):
        RealReviews(tmp_path)


def test_an_end_of_a_scale_is_the_token_of_an_answer(world: World):
    """A tokenizer as small as this one splits labels; those of one token are compared. docs/decisions/0001"""
    encode = world.vocabulary.encode
    instructions = [Instruction(wording, Scheme(("1", "2", "3", "4", "5"))) for wording in WORDINGS]
    assert all(set(encode("5")) <= set(encode(instruction.text)) for instruction in instructions)
    behind_a_space = [one.text for one in instructions if not set(encode("1")) <= set(encode(one.text))]
    assert behind_a_space == ["Rate the text, 1..5."]


def test_batches_are_drawn_by_the_seed_and_the_parts_of_an_update_are_masked_apart(world: World):
    stage = Stage(name="all", num_updates=1, learning_rate=1e-3, shots=(1,))
    one, other = (world.batch(stage, 2000, seed, 0) for seed in (0, 1))
    assert one["input_ids"].tolist() != other["input_ids"].tolist()


def test_no_row_of_an_update_is_lost_between_its_parts(world: World):
    for tokens in (300, 320, 360, 400):
        stage = Stage(name="all", num_updates=1, learning_rate=1e-3, shots=(1,))
        parts = [world.batch(stage, tokens, 0, part)["input_ids"] for part in range(PARTS)]
        assert sum(map(len, parts)) == tokens // 40


def test_the_share_of_reviews_that_are_never_masked_is_the_stages(world: World):
    stage = Stage(name="all", num_updates=1, learning_rate=1e-3, padding=0)
    for share, wanted in ((0.0, 0), (1.0, 40), (0.75, 30)):
        rows = [world._row(Random(n), 4, replace(stage, given_share=share)) for n in range(40)]
        # a row whose reviews are given may be masked in its instruction and in short answers alone
        given = sum(
            sum(m and not r for m, r in zip(row.maskable, row.response, strict=True)) < 40 for row in rows
        )
        assert abs(given - wanted) <= (0 if share in (0, 1) else 16), share


def test_as_many_stop_tokens_as_are_allowed_follow_a_single_answer_and_none_several(world: World):
    stage = Stage(name="all", num_updates=1, learning_rate=1e-3, padding=3)
    stop = world.vocabulary.padding_id

    def behind(row: Any) -> int:
        ids = list(row.ids)
        return next(n for n in range(len(ids)) if ids[-1 - n] != stop)

    counts = Counter(behind(world._row(Random(n), 1, stage)) for n in range(80))
    assert set(counts) == {0, 1, 2, 3}
    assert {behind(world._row(Random(n), 4, stage)) for n in range(9)} == {0}


def test_a_fifth_of_the_pairs_of_wording_and_scheme_is_never_taught():
    taught = training_instructions()
    pairs = len({one.scheme for one in taught}) * len(WORDINGS)
    assert 0.17 < 1 - len(taught) / pairs < 0.23


@pytest.mark.usefixtures("ready_tokenizer")
def test_a_stage_is_trained_as_the_recipe_says(real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[dict[str, Any]] = []
    firsts: list[torch.Tensor] = []

    def train(model: Any, batches: Any, output: Path, **how: Any) -> None:
        firsts.append(model.model.norm.weight.detach().clone())
        asked.append({"number": len(batches), "first": batches[0]["input_ids"].tolist(), **how})
        output.mkdir(parents=True)

    monkeypatch.setattr(embedded, "train", train)
    stages = (replace(TINY.stages[0], num_updates=80, learning_rate=3e-4, decay=False), TINY.stages[1])
    build(real, tmp_path / "model", replace(TINY, stages=stages, seed=4), use_cpu=True)
    build(real, tmp_path / "other", replace(TINY, stages=stages, seed=5), use_cpu=True)
    one, two, other, _ = asked
    assert (one["number"], one["accumulation"], one["seed"]) == (80 * PARTS, PARTS, 4)
    assert (one["learning_rate"], one["decay"], one["warmup_updates"]) == (3e-4, False, 20)
    assert (two["decay"], two["warmup_updates"]) == (True, 1)
    assert one["first"] != other["first"]
    weights = load_file(tmp_path / "model" / "model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.bfloat16}
    assert "lm_head.weight" not in weights, "tied"
    again = tmp_path / "again"
    again.mkdir()
    build(real, again / "model", replace(TINY, stages=stages, seed=4), use_cpu=True)
    same = load_file(again / "model" / "model.safetensors")
    assert all(torch.equal(value, same[name]) for name, value in weights.items()), "whatever was drawn before"


def test_what_is_answered_is_the_label_of_the_reviews_own_grade(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    grades: list[int] = []
    monkeypatch.setattr(
        World, "_review", lambda self, random, grade, share: grades.append(grade) or "A film."
    )
    stage = Stage(name="all", num_updates=1, learning_rate=1e-3, num_schemes=1, num_wordings=1, padding=0)
    scheme = training_instructions(1)[0].scheme
    row = world._row(Random(3), 8, stage)
    ids = [token for token, flag in zip(row.ids, row.response, strict=True) if flag]
    said = world.vocabulary.decode(ids).replace("<|eot_id|>", " ").split()
    assert said == [scheme.label(grade) for grade in grades]
    assert len(set(grades)) > 1


def test_the_share_of_real_sentences_is_the_stages(world: World):
    real = {text for texts in world.real.by_grade.values() for text in texts}
    for share in (0.0, 0.25, 1.0):
        drawn = sum(world._review(Random(n), 2, share) in real for n in range(200))
        assert abs(drawn - 200 * share) < (37 if 0 < share < 1 else 1)
