"""The main job on what ships with the package."""

import json
import re
from dataclasses import replace
from pathlib import Path
from statistics import mean
from types import SimpleNamespace
from typing import Any

import dspy
import pytest

from benchmarks import report
from benchmarks.chance import kappa
from benchmarks.demo_gap import METHODS, Cell, bars, gap_closed, shuffled, summarize
from benchmarks.report import write_json
from benchmarks.tasks import RandomInfiller, generated_reviews
from dspy_diffusion_infill import demo
from dspy_diffusion_infill.cli import app
from dspy_diffusion_infill.demo import (
    NUM_SCORED,
    NUM_SHOTS,
    exact,
    ratings,
    score,
    split,
    task_lm,
    written_reviews,
)
from dspy_diffusion_infill.engine.infiller import DiffusionInfiller
from dspy_diffusion_infill.engine.model import load
from dspy_diffusion_infill.prompts.canvas import Canvas, Masked, Message
from dspy_diffusion_infill.prompts.last_line import LastLineAdapter
from dspy_diffusion_infill.search.budget import CALLS_PER_EXAMPLE
from dspy_diffusion_infill.training.schemes import ORACLE, VAGUE, Scheme, held_out_schemes
from tests.doubles import rule_lm


@pytest.mark.slow
def test_the_demo_improves_a_vague_instruction_and_says_by_how_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from typer.testing import CliRunner

    monkeypatch.setattr(demo, "NUM_SCORED", 30)
    monkeypatch.setitem(CALLS_PER_EXAMPLE, "medium", 10)
    found = CliRunner().invoke(app, ["demo", "--output", str(tmp_path / "demo")], catch_exceptions=False)
    assert found.exit_code == 0
    shares = [float(share) for share in re.findall(r"^ +([\d.]+)%", found.output, flags=re.MULTILINE)]
    before, after, oracle, _ = shares
    assert "Right answers on 30 other sentences:" in found.output
    assert after > before
    assert oracle > before
    assert (tmp_path / "demo" / "report.html").is_file()


def test_another_lm_gets_copro_in_front(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The LM rates rightly once told the scale, and proposes to COPRO an instruction that does."""
    scheme = next(scheme for scheme in held_out_schemes() if len(scheme.labels) == 5)
    grades = dict(written_reviews("test"))

    def answer(system: str, user: str) -> str:
        if "proposed_instruction: <" in system:
            return f"proposed_instruction: Score, worst={scheme.worst}.\nproposed_prefix_for_output_field: R:"
        return scheme.label(grades[user]) if scheme.worst in system else "fine"

    monkeypatch.setattr(demo, "task_lm", lambda name: rule_lm(answer))
    found = demo.run_demo(lm="some/lm", output=tmp_path)
    assert found.scores["before"] == 0
    assert found.scores["after"] == 1
    assert found.instructions["after"] == f"Score, worst={scheme.worst}."


def test_the_task_lm_obeys_instructions_it_never_saw_and_not_the_vague_one():
    """Right answers by the shipped model; a guess among the labels of these schemes is right in a fifth."""
    schemes = [scheme for scheme in held_out_schemes() if len(scheme.labels) == 5]
    examples = [split(generated_reviews(75), scheme, seed=0)[1][:80] for scheme in schemes]
    with dspy.context(lm=task_lm(None), adapter=LastLineAdapter()):
        oracle = [
            score(ORACLE.format(worst=scheme.worst, best=scheme.best), few)
            for scheme, few in zip(schemes, examples, strict=True)
        ]
        vague = [score(VAGUE, few) for few in examples]
    assert mean(oracle) > 0.45
    assert mean(vague) < 0.2


def test_compile_and_score_share_no_sentence():
    for scheme in held_out_schemes()[:3]:
        shots, scored = split(written_reviews("test"), scheme, seed=1)
        assert len(shots) == NUM_SHOTS
        assert len(scored) == NUM_SCORED
        assert {shot.review for shot in shots}.isdisjoint(one.review for one in scored)


def test_an_answer_is_right_to_the_letter_or_wrong():
    example = dspy.Example(review="Fine.", rating="3")
    assert exact(example, dspy.Prediction(rating=" 3 "))
    assert not exact(example, dspy.Prediction(rating="3.0"))


def cell(vague: float, infilled: float, oracle: float) -> Cell:
    scores = {"vague": vague, "infilled": infilled, "oracle": oracle, "shuffled": vague}
    kappas = {name: value / 2 for name, value in scores.items()}
    return Cell("written", "s", 0, {}, scores, kappas, 0.0)


def test_the_gap_is_a_ratio_of_mean_gains_clipped_at_the_oracle():
    # gains .4 (clipped from .6) and .1; the oracle's .4 and .6
    cells = [cell(0.2, 0.8, 0.6), cell(0.1, 0.2, 0.7)]
    assert gap_closed(cells) == pytest.approx(0.5)


def test_an_oracle_that_gains_nothing_leaves_no_gap_and_no_bar():
    assert gap_closed([cell(0.5, 0.75, 0.5)]) is None
    assert bars([cell(0.5, 0.75, 0.5)]) == {}
    shown = []
    flat = replace(
        cell(0.5, 0.75, 0.5), scores=dict.fromkeys(METHODS, 0.5), kappas=dict.fromkeys(METHODS, 0.5)
    )
    summarize([flat], shown.append)
    assert shown[1].splitlines()[1].split() == ["gap", *"-" * len(METHODS)]
    assert shown[1].splitlines()[2].split() == ["by", "kappa", *"-" * len(METHODS)]
    sst = replace(cell(0.2, 0.3, 0.4), domain="sst")
    assert bars([cell(0.2, 0.3, 0.4), sst]) == {
        "gap_closed": pytest.approx(0.5),
        "gap_closed_sst": pytest.approx(0.5),
        "kappa_closed": pytest.approx(0.5),
        "kappa_closed_sst": pytest.approx(0.5),
        "shuffled_kappa_closed": 0.0,
        "shuffled_kappa_closed_sst": 0.0,
        "oracle_sst": 0.4,
    }


def test_naming_the_labels_is_worth_nothing_beyond_chance():
    """By hand: 4 of 8 agree, and in any other order (4 * 2 + 4 * 2 + 0 * 4) / 8 = 2 would."""
    labels = ["a", "a", "b", "b", "c", "c", "c", "c"]
    answers = ["a", "a", "b", "b", "a", "a", "b", "b"]
    assert kappa(answers, labels) == pytest.approx((4 - 2) / (8 - 2))
    assert kappa(labels, labels) == 1.0
    assert kappa(["a"] * 8, labels) == kappa(["?"] * 8, labels) == 0.0
    assert kappa(["b", "b", "a", "a", *"aabb"], labels) < 0.0
    assert kappa(["a"], ["a"]) == 0.0


MANY = [dspy.Example(review=str(n), rating="1").with_inputs("review") for n in range(40)]


def test_any_number_of_answers_may_be_empty():
    """As a model's may be that was taught responses alone and is asked to answer without an instruction."""
    with dspy.context(lm=rule_lm(lambda *_: ""), adapter=LastLineAdapter()):
        assert ratings("Rate.", MANY) == [""] * 40
        assert score("Rate.", MANY) == 0.0


def test_an_lm_that_fails_is_no_score():
    class Failing(dspy.BaseLM):
        def forward(self, *_: Any, **__: Any):
            raise ConnectionError("no answer")

    with dspy.context(lm=Failing("failing")), pytest.raises(Exception, match=r"no answer|cancelled"):
        score("Rate.", MANY)


def test_shuffling_keeps_the_labels_and_breaks_the_pairs():
    examples = [dspy.Example(review=str(n), rating=str(n)).with_inputs("review") for n in range(16)]
    mixed = shuffled(examples, seed=0)
    assert sorted(one.rating for one in mixed) == sorted(one.rating for one in examples)
    assert sum(one.rating == one.review for one in mixed) < 6
    assert [one.rating for one in examples] == [one.review for one in examples]


def test_random_fillings_are_text_of_the_asked_length_and_seeded():
    random = RandomInfiller(DiffusionInfiller(load("embedded")))
    canvas = Canvas((Message("system", ("Rate", Masked(5), ".")),))
    one, same = (random.infill([canvas], num_candidates=3, seed=4) for _ in range(2))
    assert one == same
    assert len({filling.texts for filling in one[0]}) == 3


def test_generated_sentences_cover_the_grades_evenly():
    grades = [grade for _, grade in generated_reviews(50)]
    assert [grades.count(grade) for grade in range(5)] == [10] * 5


def test_a_result_file_holds_meta_rows_and_bars(tmp_path: Path):
    write_json(tmp_path / "r.json", rows=[{"a": 1}], bars={"gap_closed": 0.5}, seeds=[0], started=0.0)
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["rows"] == [{"a": 1}]
    assert found["bars"] == {"gap_closed": 0.5}
    assert {"command", "commit", "versions", "hardware", "seeds"} <= found["meta"].keys()


def test_a_result_says_how_to_run_it_again_and_where_it_ran(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(report.sys, "argv", ["x", "--data", "my files", "--seeds", "1"])
    monkeypatch.setattr(report, "COMMIT", "at the start")
    monkeypatch.setattr(report, "_commit", lambda: "at the end")
    cuda = SimpleNamespace(is_available=lambda: True, device_count=lambda: 1, get_device_name=str)
    monkeypatch.setitem(report.sys.modules, "torch", SimpleNamespace(cuda=cuda))
    monkeypatch.setattr(report, "Path", lambda _: tmp_path / "no such file")
    write_json(tmp_path / "r.json", rows=[], bars={}, seeds=[0], started=0.0)
    meta = json.loads((tmp_path / "r.json").read_text())["meta"]
    assert meta["command"].endswith("--data 'my files' --seeds 1")
    assert meta["commit"] == "at the start"
    assert meta["hardware"]["gpus"] == "0"


def test_numbers_that_are_none_are_null_and_no_bars(tmp_path: Path):
    rows = [{"gain": {"low": float("nan")}, "all": [float("inf"), 0.5]}]
    bars = {"gap_closed": float("nan"), "known": 1.0}
    write_json(tmp_path / "r.json", rows=rows, bars=bars, seeds=[0], started=0.0)
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["rows"] == [{"gain": {"low": None}, "all": [None, 0.5]}]
    assert found["bars"] == {"known": 1.0}


def test_a_two_label_scheme_leaves_mixed_reviews_out():
    shots, scored = split([("fine", 2), ("bad", 1)] * 8, Scheme(("no", "yes")), seed=0)
    assert {one.review for one in [*shots, *scored]} == {"bad"}
