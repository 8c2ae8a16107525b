"""The training benchmark, at a size of seconds: both loops do the same work."""

from dataclasses import astuple
from pathlib import Path

import pytest

from benchmarks.speed_train import Row, bars, difference, read_examples, run
from benchmarks.training_loops import Sizes
from dspy_diffusion_infill.errors import SettingsError
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
