"""The benchmark of the claim, cut short: it runs, keeps what it did, and reports what it found."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.demo_gap import Cell
from benchmarks.unlock import METHODS, bars, draw, interval, run
from benchmarks.unlock_models import VARIANTS, Models, Plan
from dspy_diffusion_infill import demo
from dspy_diffusion_infill.training import train
from dspy_diffusion_infill.training.world import Stage
from tests.training.conftest import TINY

SHORT = Plan(
    recipe=TINY,
    start_updates=2,
    public=(Stage(name="all", num_updates=2, learning_rate=1e-3, objectives=("ro",)),),
    refinement=4,
    num_schemes=1,
    held_out=8,
)


def test_variants_take_equally_many_updates_from_one_parent():
    lengths = {name: sum(stage.num_updates for stage in SHORT.stages(name)) for name in VARIANTS}
    assert lengths == {"public": 0, "ro": 4, "fs": 4, "fsro": 4}
    assert [stage.objectives for stage in SHORT.stages("fsro")] == [("fs",), ("ro",)]


@pytest.mark.slow
@pytest.mark.usefixtures("ready_tokenizer")
def test_a_short_run_measures_every_variant_and_a_second_one_only_reads_it(
    real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(demo, "NUM_SHOTS", 4)
    monkeypatch.setattr(demo, "NUM_SCORED", 6)
    models = Models(real, tmp_path / "work", SHORT)
    cells, seeds = run(models, [0], task=str(models.start))
    assert [set(cell.scores) for cell in cells] == [set(METHODS)]
    (found,) = seeds
    for name in VARIANTS:
        assert set(found.own[name]) == {"none", "own", "fsro", "oracle"}
        assert 0 <= found.losses[name]["stop_share"] <= 1
        assert found.losses[name]["eval_prompt_perplexity"] > 1
        assert len(found.curves[name]) > 1
    draw(tmp_path / "figure.png", cells, seeds)
    assert (tmp_path / "figure.png").stat().st_size > 1000
    monkeypatch.setattr(train.MaskedDiffusionTrainer, "training_step", lambda *_: 1 / 0)
    again = Models(real, tmp_path / "work", SHORT)
    assert run(again, [0], task=str(again.start)) == (cells, seeds)


def test_gaps_are_those_of_the_demo_with_an_interval_over_cells():
    scores = dict.fromkeys(METHODS, 0.2) | {"vague": 0.0, "oracle": 0.8, "fsro": 0.6}
    cell = Cell("generated", "1..5", 0, scores, {}, 1.0)
    cells = [cell, replace(cell, scores=scores | {"fsro": 1.0})]
    found = bars(cells)
    assert found["fsro_gap_closed"] == pytest.approx(0.875)  # (.6 + .8, clipped at the oracle) over 1.6
    assert found["ro_gap_closed"] == found["shuffled_gap_closed"] == pytest.approx(0.25)
    low, high = interval(cells, "fsro")
    assert (low, high) == (pytest.approx(0.75), pytest.approx(1.0))
    assert bars([replace(cell, scores=scores | {"oracle": 0.0})]) == {}
