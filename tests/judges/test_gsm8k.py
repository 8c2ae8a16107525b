"""`benchmarks.gsm8k`: the last number decides; masks before the instructions are filled; help keeps them."""

import json
from pathlib import Path

import dspy
import pytest

from benchmarks import gsm8k, tuning
from dspy_diffusion_infill.errors import SettingsError
from tests.doubles import ScriptedInfiller, rule_lm


def problems(count: int) -> str:
    rows = (
        {
            "question": f"What is {n} + 1?",
            "answer": f"It is <<{n}+1={n + 1}>>.\n#### {n + 1}",
            "final_answer": str(n + 1),
        }
        for n in range(count)
    )
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    for part, count in (("train", 8), ("test", 5)):
        (tmp_path / f"gsm8k_{part}.jsonl").write_text(problems(count))

    def run(lm, *more: object) -> tuple[list[dict], str]:
        monkeypatch.setattr(gsm8k, "lm_of", lambda *names, **settings: lm)
        arguments = [
            "--data",
            tmp_path,
            "--shots",
            4,
            "--threads",
            1,
            "--json",
            tmp_path / "found.json",
            *more,
        ]
        gsm8k.main([str(argument) for argument in arguments])
        return json.loads((tmp_path / "found.json").read_text())["rows"], capsys.readouterr().out

    return run


def adding(system: str, user: str) -> str:
    """Adds if it is told to think, or shown how; else it repeats the question."""
    question = user.rpartition("What is ")[2]
    number = int(question.split()[0])
    able = "Think hard." in system
    return f"[[ ## answer ## ]]\nIt is {number + 1 if able else number}.\n\n[[ ## completed ## ]]"


def test_the_last_number_of_an_answer_decides():
    assert gsm8k.last_number("3 eggs at $2 make $6.") == 6
    assert gsm8k.last_number("-1,234.5%") == -1234.5
    assert gsm8k.last_number("none") is None


@pytest.mark.parametrize("final", ["7", "seven"])
def test_an_answer_without_a_number_is_never_right(final: str):
    example = dspy.Example(question="?", answer="It is seven.", final=final)
    assert gsm8k.solved(example, dspy.Prediction(answer="It is seven.")).score == 0
    assert gsm8k.solved(example, dspy.Prediction(answer="It is 7.")).score == (final == "7")


def test_too_few_problems_are_refused_before_any_is_solved(run):
    with pytest.raises(SettingsError, match=r"Problems of train must be at least 9; got 8\."):
        run(rule_lm(lambda *_: 1 / 0), "--shots", 9)


def test_masks_before_the_instructions_are_filled_and_kept_if_they_help(run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tuning, "DiffusionInfill", scripted(tuning.DiffusionInfill))
    rows, shown = run(rule_lm(adding), "--methods", "baseline", "infill", "--mask", 3)
    before, after = rows
    assert (before["accuracy"], after["accuracy"]) == (0, 1)
    assert after["instructions"] == "Think hard.\n" + before["instructions"]
    assert after["words"] == before["words"] + 2
    assert (after["n"], after["unscored"]) == (5, 0)
    assert "LLaDA 8B, FS+RO, infills" in shown


def test_worked_examples_make_the_prompt_longer(run):
    rows, _ = run(rule_lm(adding), "--methods", "baseline", "--in-context", "--limit", 2)
    assert [row["method"] for row in rows] == ["in context", "baseline"]
    assert rows[0]["words"] > rows[1]["words"] + 4 * 8
    assert rows[0]["n"] == 2


def scripted(optimizer):
    """The optimizer with an infiller of ours."""

    def make(*arguments, infiller, **settings):
        return optimizer(*arguments, infiller=ScriptedInfiller("Think hard."), **settings)

    return make
