"""`benchmarks.results`: every row of every file, with what was run, and figures of what can be drawn."""

import json
from pathlib import Path

from benchmarks import results

META = {
    "command": "python -m benchmarks.gsm8k --limit 2",
    "commit": "abc123",
    "date": "2026-11-21",
    "seconds": 1.5,
    "seeds": [0],
    "versions": {"python": "3.11.7"},
    "hardware": {"processor": "a fast one", "cores": 2},
}
ESTIMATE = {"value": 0.5, "low": 0.25, "high": 0.75}
AGREEING = {"judge": "gpt", "method": "", "seed": "", "target": "overall", "dataset": {"spearman": ESTIMATE}}


def page(tmp_path: Path, **files: dict) -> str:
    (tmp_path / "runs").mkdir()
    for name, found in files.items():
        (tmp_path / "runs" / f"{name}.json").write_text(json.dumps({"meta": META, "bars": {}, **found}))
    results.main([str(tmp_path / "runs"), "--output", str(tmp_path / "docs" / "results.md")])
    return (tmp_path / "docs" / "results.md").read_text()


def test_every_file_is_a_section_with_its_command_commit_and_hardware(tmp_path: Path):
    rows = [{"lm": "a|b", "accuracy": None}, {"lm": "c", "n": 3, "text": "word " * 40}]
    text = page(tmp_path, one={"rows": rows}, two={"rows": [{"n": 1}], "bars": {"gpt4_fluency": 0.5}})
    assert text.index("## one") < text.index("## two")
    assert "`python -m benchmarks.gsm8k --limit 2`" in text
    assert "Commit abc123, 2026-11-21, 1.5 s; processor a fast one, cores 2; python 3.11.7." in text
    assert "| lm | accuracy | n | text |" in text
    assert "| a\\|b | - |  |  |" in text
    assert f"| c |  | 3 | {('word ' * 40)[:57]}... |" in text
    assert "| gpt4_fluency | 0.500 |" in text
    assert "![" not in text


def test_agreement_and_lengths_are_drawn(tmp_path: Path):
    solved = [{"method": "infill", "seed": 0, "accuracy": 0.5, "words": 40}]
    text = page(tmp_path, agree={"rows": [AGREEING]}, solve={"rows": solved})
    assert "![agree](figures/agree.svg)" in text
    assert "| gpt |  |  | overall | 0.500 [0.250, 0.750] |" in text
    for name, label in (("agree", "Spearman with people"), ("solve", "words of the prompt")):
        assert label in (tmp_path / "docs" / "figures" / f"{name}.svg").read_text()


def test_a_value_outside_its_interval_is_drawn():
    outside = {**AGREEING, "dataset": {"spearman": {"value": 0.8, "low": 0.25, "high": 0.75}}}
    assert results.drawing([outside]) is not None


def test_what_has_no_number_is_not_drawn():
    undefined = {**AGREEING, "dataset": {"spearman": dict.fromkeys(ESTIMATE)}}
    assert results.drawing([undefined, {"accuracy": None, "words": 3}]) is None
