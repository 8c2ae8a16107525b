"""`diffusion-infill judge align`: a CSV of people's scores in, a judge and a report out."""

import csv
import json
from pathlib import Path

import dspy
import pytest
from typer.testing import CliRunner

from dspy_diffusion_infill import errors
from dspy_diffusion_infill.cli import app
from dspy_diffusion_infill.judges import align, command
from dspy_diffusion_infill.judges.prometheus import Judge
from dspy_diffusion_infill.judges.templates import read_rubric, rubric
from tests.doubles import ScriptedInfiller, rule_lm

RUBRIC = 'criterion = "Is it long?"\ndescriptions = { 1 = "Not", 5 = "Very" }\n'


@pytest.fixture
def scores(tmp_path: Path) -> Path:
    file = tmp_path / "scores.csv"
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.DictWriter(opened, ["response", "instruction", "score"])
        writer.writeheader()
        writer.writerows(
            {"response": "word " * (n % 5 + 1) + str(n), "instruction": "Go.", "score": n % 5 + 1}
            for n in range(12)
        )
    return file


def by_length(system: str, user: str) -> str:
    text = user.split("###Response to evaluate:\n")[1].split("\n")[0]
    return f"[RESULT] {text.count('word') if 'words count' in user else 3}"


def test_a_judge_is_aligned_saved_and_reported(scores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(command, "_lm", lambda name, api_base: rule_lm(by_length))
    monkeypatch.setattr(align, "DiffusionInfill", scripted(align.DiffusionInfill))
    (tmp_path / "rubric.toml").write_text(RUBRIC)
    output = tmp_path / "out"
    arguments = ["judge", "align", scores, "--lm", "rule", "--rubric", tmp_path / "rubric.toml"]
    arguments += ["--template", "judge-no-reference", "--budget", "medium", "--output", output]
    answer = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert answer.exit_code == 0
    assert "| spearman | nan [nan, nan] | 1.000 [1.000, 1.000] |" in answer.output
    assert "Tuned on 6 records, held out 6 of 6 documents" in (output / "alignment.md").read_text(
        encoding="utf-8"
    )
    assert (output / "report.html").is_file()
    again = Judge(read_rubric(str(tmp_path / "rubric.toml")), template="judge-no-reference")
    again.load(output / "judge.json")
    assert "words count" in again.grade.signature.instructions
    assert json.loads((output / "judge.json").read_text())


def test_a_template_with_a_rubric_of_its_own_needs_none(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(command, "_lm", lambda name, api_base: rule_lm(by_length))
    arguments = ["judge", "align", "nowhere.csv", "--lm", "rule", "--template", "brief"]
    with pytest.raises(errors.SettingsError, match="scores must be a CSV file"):
        CliRunner().invoke(app, arguments, catch_exceptions=False)


def scripted(optimizer):
    """The optimizer with an infiller of ours."""

    def make(*arguments, infiller, **settings):
        return optimizer(*arguments, infiller=ScriptedInfiller("words count"), **settings)

    return make


def test_a_rubric_is_read_from_a_file_or_by_name(tmp_path: Path):
    file = tmp_path / "rubric.toml"
    file.write_text(RUBRIC)
    assert read_rubric(str(file)).text == "[Is it long?]\nScore 1: Not\nScore 5: Very"
    assert read_rubric("summeval-overall") == rubric("summeval-overall")
    file.write_text('criterion = "Is it long?"\n')
    with pytest.raises(errors.SettingsError, match="must hold criterion and two descriptions or more"):
        read_rubric(str(file))
    file.write_bytes(b'criterion = "\\xff"')
    with pytest.raises(errors.SettingsError, match="rubric must be a TOML file in UTF-8"):
        read_rubric(str(file))
    with pytest.raises(errors.SettingsError, match="rubric must be one of 'summeval-overall'; got 'nowhere'"):
        read_rubric("nowhere")


@pytest.mark.parametrize(
    ("descriptions", "message"),
    [
        ('["Not", "Very"]', "must hold criterion and two descriptions or more"),
        ('{ low = "Not", 5 = "Very" }', "must be a score; got 'low'"),
        ('{ 2.5 = "Not", 5 = "Very" }', r"Quote a score with a point in its key: \"2\.5\""),
        ("{ 1 = 1, 5 = 2 }", "must be a text; got 1 for 1"),
    ],
)
def test_a_rubric_s_file_says_a_text_for_each_score(tmp_path: Path, descriptions, message):
    file = tmp_path / "rubric.toml"
    file.write_text(f'criterion = "Is it long?"\ndescriptions = {descriptions}\n')
    with pytest.raises(errors.SettingsError, match=message):
        read_rubric(str(file))


def test_the_judge_is_a_served_model_or_any_lm():
    assert command._lm("m", "http://127.0.0.1:1/v1").model == "hosted_vllm/m"
    assert isinstance(command._lm("openai/m", None), dspy.LM)
