"""`diffusion-infill perplexity`: the numbers of `estimate_nelbo`, from files."""

import json
import math
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dspy_diffusion_infill.cli import app
from dspy_diffusion_infill.commands.perplexity import _own_seed
from dspy_diffusion_infill.engine.likelihood import estimate_nelbo, response_target, text_target
from dspy_diffusion_infill.engine.model import load
from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.prompts.canvas import Message


def ran(*options: object):
    command = ["perplexity", *map(str, options), "--model", "embedded"]
    return CliRunner().invoke(app, command, catch_exceptions=False)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    (tmp_path / "text.txt").write_text("Rate the text (1-5).")
    rows = '{"prompt": "A fine film.", "response": "5"}\n{"text": "Rate the text."}\n'
    (tmp_path / "rows.jsonl").write_text(rows)
    return [tmp_path / "text.txt", tmp_path / "rows.jsonl"]


def test_texts_and_responses_are_scored_as_in_python(files: list[Path]):
    found = json.loads(ran(*files, "--samples", 4, "--seed", 5, "--json").stdout)
    model = load("embedded")
    targets = [
        text_target(model.vocabulary, "Rate the text (1-5)."),
        response_target(model.vocabulary, [Message.text("user", "A fine film.")], "5"),
        text_target(model.vocabulary, "Rate the text."),
    ]
    wanted = [
        estimate_nelbo(model, [target], num_samples=4, seed=_own_seed(5, number))[0]
        for number, target in enumerate(targets)
    ]
    assert wanted[0] == estimate_nelbo(model, targets[:1], num_samples=4, seed=5)[0]
    assert [one["nelbo"] for one in found["texts"]] == pytest.approx([one.nelbo for one in wanted])
    assert [one["place"] for one in found["texts"]] == [
        str(files[0]), f"{files[1]}, line 1", f"{files[1]}, line 2"
    ]  # fmt: skip
    nelbo, tokens = sum(one.nelbo for one in wanted), sum(one.num_tokens for one in wanted)
    assert found["all"]["perplexity"] == pytest.approx(math.exp(nelbo / tokens))
    assert found["all"]["standard_error"] == pytest.approx(
        math.hypot(*(one.standard_error for one in wanted))
    )


def test_texts_are_drawn_apart_so_that_errors_of_all_add_up_as_said(tmp_path: Path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "Rate the text (1-5)."}\n' * 2)
    first, second = json.loads(ran(rows, "--samples", 2, "--json").stdout)["texts"]
    assert first["nelbo"] != second["nelbo"]


def test_a_text_is_scored_as_a_system_message_without_its_header():
    vocabulary = load("embedded").vocabulary
    target = text_target(vocabulary, "Rate the text.")
    assert vocabulary.decode([target.ids[at] for at in target.scored]) == "Rate the text."
    assert len(target.ids) > len(target.scored)


def test_a_table_has_a_line_a_text_and_one_for_all_and_an_unknown_error_is_no_number(files: list[Path]):
    lines = ran(*files, "--samples", 1).stdout.splitlines()
    assert [line.split()[-1] for line in lines] == ["text", str(files[0]), "1", "2", "all"]
    found = json.loads(ran(files[0], "--samples", 1, "--json").stdout)
    assert found["texts"][0]["standard_error"] is None


def test_rows_without_text_and_empty_texts_are_refused(tmp_path: Path):
    (tmp_path / "a.csv").write_text("prompt,answer\na,b\n")
    with pytest.raises(SettingsError, match=r"must have text, or prompt and response; .*a.csv, line 2 has"):
        ran(tmp_path / "a.csv")
    rows = ['{"text": null}', '{"prompt": null, "response": null}', '{"text": {"a": 1}}']
    for row in rows:
        (tmp_path / "a.jsonl").write_text(row)
        with pytest.raises(SettingsError, match=r"a.jsonl, line 1 has \[\] with a value"):
            ran(tmp_path / "a.jsonl")
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(SettingsError, match=r"at least one token; .*empty.txt holds none"):
        ran(tmp_path / "empty.txt")
