"""The training benchmark, at a size of seconds: both loops do the same work."""

from dataclasses import astuple
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import speed_train
from benchmarks.speed_train import Row, Update, bars, difference, lay_out_both, pair, read_examples, run
from benchmarks.training_loops import BATCH, NUM_BATCHES, PlainTrainer, Sizes, loops
from dspy_diffusion_infill.engine.attention import attends_by_example
from dspy_diffusion_infill.engine.vocabulary import Vocabulary
from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.prompts.canvas import Message
from dspy_diffusion_infill.training.data import Example, encode
from dspy_diffusion_infill.training.loss import IGNORED
from dspy_diffusion_infill.training.trainer import MaskedDiffusionTrainer
from tests.training.conftest import write_rows

pytestmark = pytest.mark.usefixtures("own_cache")


def test_both_loops_have_the_same_losses(tmp_path: Path):
    rows = [{"prompt": "word " * (n * 7 % 23), "response": "reply " * (n % 5 + 1)} for n in range(96)]
    source = write_rows(tmp_path / "data.jsonl", rows)
    sizes = Sizes(vocab_size=400, hidden_size=16, num_layers=1)
    data = read_examples(str(source), 400)
    assert difference(*data, sizes, 0) < 1e-5
    found = list(run(*data, sizes=sizes, seconds=120.0, seed=0, bf16=False))
    assert [row.objective for row in found] == ["fs", "ro"], "the first pair warms up"
    for row in found:
        assert row.loss_plain == pytest.approx(row.loss_ours, abs=1e-4)
        assert row.loss_plain > 1
        assert min(row.seconds_plain, row.seconds_ours) > 0
        assert 0 < row.padding < 0.9
        assert 0 < row.masked < row.tokens


def test_as_many_examples_as_are_asked_for_are_enough(tmp_path: Path):
    rows = [{"prompt": "word " * (n % 5 + 1), "response": "reply"} for n in range(64)]
    none = {"messages": [{"role": "user", "content": "word"}]}
    source = write_rows(tmp_path / "data.jsonl", rows)
    data = read_examples(str(source), 400)
    sizes = Sizes(vocab_size=400, hidden_size=16, num_layers=1)
    assert difference(*data, sizes, 0) < 1e-5
    assert [row.objective for row in run(*data, sizes=sizes, seconds=0.0, seed=0, bf16=False)] == ["fs"]
    turns = [{"messages": [{"role": "user", "content": "w"}, {"role": "assistant", "content": "r"}]}] * 63
    source = write_rows(tmp_path / "unanswered.jsonl", [*turns, none])
    with pytest.raises(SettingsError, match="that have a response must be at least 64; got 63"):
        read_examples(str(source), 400)


def test_too_few_examples_are_refused_in_words(tmp_path: Path):
    source = write_rows(tmp_path / "data.jsonl", [{"prompt": "word", "response": "reply"}] * 63)
    with pytest.raises(SettingsError, match="must be at least 64; got 63"):
        read_examples(source, 400)


def test_speeds_are_compared_total_over_total():
    slow = Row("fs", 100, 50, 0.5, 9.0, 2.0, 1.5, 1.5)
    quick = Row(*astuple(slow)[:4], 1.0, 2.0, 1.0, 1.25)
    assert bars([slow, quick], 1e-6) == {
        "tokens_per_s_ratio": 2.5,
        "tokens_per_s_ratio_fs": 2.5,
        "loss_diff": 1e-6,
        "loss_diff_timed": 0.25,
    }


SIZES = Sizes(vocab_size=600, hidden_size=16, num_layers=1)


@pytest.fixture
def examples(vocabulary: Vocabulary) -> list[Example]:
    turns = [("word " * (n * 7 % 23 + 1), "reply " * (n % 5 + 1)) for n in range(2 * BATCH)]
    return [
        encode([Message.text("user", ask), Message.text("assistant", reply)], vocabulary)
        for ask, reply in turns
    ]


class Fake:
    """A loop that says when it was asked, and answers with seconds and a loss of its own."""

    def __init__(self, seconds: float, loss: float, log: list) -> None:
        self.seconds, self.own, self.log = seconds, loss, log
        self.model = torch.nn.Linear(1, 1)

    def update(self, batches: list) -> tuple[float, float]:
        self.log.append((self.seconds, self.model.weight.item()))
        self.model.weight.data += self.seconds  # each learns something else
        return self.seconds, self.own

    def loss(self, batches: list) -> float:
        return self.own * len(batches)


def test_seconds_losses_and_counts_are_of_the_loop_they_are_said_of(
    examples: list[Example], vocabulary: Vocabulary
):
    log: list = []
    plain, ours = Fake(9.0, 1.5, log), Fake(2.0, 1.25, log)
    update = lay_out_both(examples, vocabulary, "fs", 0, 0)
    row = pair(plain, ours, update, ours_first=False)  # type: ignore[arg-type]
    assert (row.seconds_plain, row.seconds_ours, row.loss_plain, row.loss_ours) == (9.0, 2.0, 1.5, 1.25)
    assert row.tokens == sum(len(example.ids) for example in examples[:BATCH])
    assert row.masked == sum(int((batch["labels"] != IGNORED).sum()) for batch in update.plain)
    positions = sum(batch["input_ids"].numel() for batch in update.plain)
    assert row.padding == pytest.approx(1 - row.tokens / positions)
    pair(plain, ours, update, ours_first=True)  # type: ignore[arg-type]
    assert [seconds for seconds, _ in log] == [9.0, 2.0, 2.0, 9.0]


def test_both_loops_are_given_the_same_masks_one_padded_and_one_packed(
    examples: list[Example], vocabulary: Vocabulary
):
    update = lay_out_both(examples, vocabulary, "ro", 1, 0)
    assert len(update.plain) == len(update.ours) == NUM_BATCHES
    assert {len(batch["input_ids"]) for batch in update.plain} == {BATCH // NUM_BATCHES}
    assert {len(batch["input_ids"]) for batch in update.ours} == {1}
    assert max(int(batch["attention_mask"].max()) for batch in update.plain) == 1
    labels = [sorted(torch.cat([batch["labels"].flatten() for batch in of]).tolist()) for of in update[2:]]
    plain, ours = ([label for label in some if label != IGNORED] for some in labels)
    assert plain == ours


def test_both_have_the_same_weights_before_each_pair_and_the_first_is_left_out(
    examples: list[Example], vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch
):
    log: list = []
    fakes = Fake(9.0, 1.5, log), Fake(2.0, 1.25, log)
    monkeypatch.setattr(speed_train, "loops", lambda *_, **__: fakes)
    found = list(run(examples, vocabulary, sizes=SIZES, seconds=99.0, seed=0, bf16=False))
    assert [row.objective for row in found] == ["fs"]
    assert len(log) == 4
    assert log[0][1] == log[1][1]
    assert log[2][1] == log[3][1]
    assert [seconds for seconds, _ in log] == [9.0, 2.0, 2.0, 9.0], "in turns"


def test_the_difference_is_the_largest_of_any_objective(
    examples: list[Example], vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch
):
    def told(*given: Any) -> Update:
        return Update(given[2], [], [{}] * (1 if given[2] == "fs" else 2), [{}])

    asked: list[bool] = []

    def fakes(*_: Any, bf16: bool) -> tuple[Fake, Fake]:
        asked.append(bf16)
        return Fake(1.0, 1.0, []), Fake(1.0, 1.75, [])

    monkeypatch.setattr(speed_train, "lay_out_both", told)
    monkeypatch.setattr(speed_train, "loops", fakes)
    assert difference(examples, vocabulary, SIZES, 0) == 0.75  # of fs; of ro, |2 - 1.75|
    assert asked == [False]


def test_the_two_loops_differ_in_what_is_compared_and_in_nothing_else(
    examples: list[Example], vocabulary: Vocabulary, tmp_path: Path
):
    plain, ours = loops(vocabulary, SIZES, str(tmp_path), bf16=False)
    assert (plain.trainer, ours.trainer) == (PlainTrainer, MaskedDiffusionTrainer)
    assert (attends_by_example(plain.model), attends_by_example(ours.model)) == (False, True)
    assert plain.model is not ours.model
    for name, value in plain.model.state_dict().items():
        assert torch.equal(value, ours.model.state_dict()[name])
    assert plain.model.config.is_causal is False
    update = lay_out_both(examples, vocabulary, "fs", 0, 0)
    for loop, batches in ((plain, update.plain), (ours, update.ours)):
        before = loop.loss(batches)
        seconds, loss = loop.update(batches)
        assert loss == pytest.approx(before, abs=1e-4), "the mean over all batches of the update"
        assert seconds != loss
        assert {int(state["step"]) for state in loop.optimizer.state.values()} == {1}, (
            "one step, of its own optimizer"
        )
    assert loops(vocabulary, SIZES, str(tmp_path), bf16=True)[0].arguments.bf16 is True
