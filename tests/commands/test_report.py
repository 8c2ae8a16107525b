"""`diffusion-infill report`: the same pages, made again from a run's saved results."""

import json
import math
from pathlib import Path

import dspy
import pytest
from typer.testing import CliRunner

from dspy_diffusion_infill import CompactAdapter, DiffusionInfill
from dspy_diffusion_infill.cli import app
from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.report import write_report
from tests.doubles import ScriptedInfiller, exact, obey, reviews, rule_lm


def ran(*options: object):
    return CliRunner().invoke(app, ["report", *map(str, options)], catch_exceptions=False)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    program = dspy.Predict(dspy.Signature("review -> rating", "Rate the text."))
    optimizer = DiffusionInfill(exact, infiller=ScriptedInfiller("Rate warm text", "now five"))
    with dspy.context(lm=rule_lm(obey), adapter=CompactAdapter()):
        write_report(optimizer.compile(program, trainset=reviews()), tmp_path)
    return tmp_path


def test_the_pages_are_made_again_to_the_byte(run: Path):
    pages = [run / "report.html", run / "report.md"]
    before = [page.read_bytes() for page in pages]
    for page in pages:
        page.unlink()
    results = (run / "run.json").read_bytes()
    assert ran(run).stdout == f"Report: {pages[0]}\n"
    assert [page.read_bytes() for page in pages] == before
    assert (run / "run.json").read_bytes() == results
    found = json.loads(ran(run, "--json").stdout)
    assert found["html"] == str(pages[0])
    assert found["markdown"] == str(pages[1])
    assert found["score_after"] > found["score_before"]


def test_a_score_that_json_has_no_number_for_is_none(run: Path):
    found = json.loads((run / "run.json").read_text())
    found["detailed_results"]["score_after"] = math.nan
    (run / "run.json").write_text(json.dumps(found))
    assert json.loads(ran(run, "--json").stdout)["score_after"] is None


def test_a_run_of_no_calls_and_a_page_that_is_a_folder_are_refused(run: Path):
    (run / "report.html").unlink()
    (run / "report.html").mkdir()
    with pytest.raises(SettingsError, match=r"report.html must be a file, or not there; it is a folder"):
        ran(run)
    found = json.loads((run / "run.json").read_text())
    found["detailed_results"]["metric_calls"] = 0
    (run / "run.json").write_text(json.dumps(found))
    with pytest.raises(SettingsError, match="no page can be made of it: ZeroDivisionError"):
        ran(run)


def test_a_folder_without_results_says_what_it_lacks(tmp_path: Path):
    with pytest.raises(SettingsError, match=r"holds run.json; .* holds none.$"):
        ran(tmp_path)
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / "journal.jsonl").touch()
    with pytest.raises(SettingsError, match="Its run has not ended: go on with the same command"):
        ran(tmp_path)


@pytest.mark.parametrize("text", ["{", "[" * 99999, "[]", "{}", '{"detailed_results": {}}'])
def test_results_that_no_page_can_be_made_of_are_refused(tmp_path: Path, text: str):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(SettingsError, match=r"run.json"):
        ran(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["run.json"]
