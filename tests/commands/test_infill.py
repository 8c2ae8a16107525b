"""`diffusion-infill infill`, from a prompt file to candidates."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dspy_diffusion_infill.cli import app
from dspy_diffusion_infill.engine.infiller import DiffusionInfiller
from dspy_diffusion_infill.engine.model import load
from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.prompts.canvas import Canvas, Denoising, Masked, Message
from dspy_diffusion_infill.serving import connect
from tests.doubles import ScriptedInfiller, show


@pytest.fixture
def scripted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ScriptedInfiller:
    infiller = ScriptedInfiller("how warm", "the mood of")
    monkeypatch.setattr(connect, "connect", lambda name, denoising: infiller)
    monkeypatch.chdir(tmp_path)
    return infiller


def ran(*options: str):
    return CliRunner().invoke(app, ["infill", *options], catch_exceptions=False)


def test_windows_slide_over_a_prompt_and_changes_are_marked(scripted: ScriptedInfiller):
    Path("p.txt").write_text("Rate the text well\n")
    Path("e.jsonl").write_text('{"review": "Dull.", "output": "2"}\n')
    done = ran("p.txt", "--examples", "e.jsonl", "--window", "2", "--mask", "5", "-n", "2", "--seed", "1")
    assert done.stdout == (
        "\nwindow 1 of 3, characters 0 to 8: 'Rate the'\n"
        "   -1.00  [the mood of] text well\n"
        "   -1.00  [how warm] text well\n"
        "\nwindow 2 of 3, characters 5 to 13: 'the text'\n"
        "   -1.00  Rate [the mood of] well\n"
        "   -1.00  Rate [how warm] well\n"
        "\nwindow 3 of 3, characters 9 to 18: 'text well'\n"
        "   -1.00  Rate the [the mood of]\n"
        "   -1.00  Rate the [how warm]\n"
    )
    assert [show(canvas.messages[0]) for canvas in scripted.canvases] == [
        "_____ text well", "Rate _____ well", "Rate the _____"
    ]  # fmt: skip
    assert scripted.canvases[0].context == (Message.text("user", "Dull."), Message.text("assistant", "2"))
    assert scripted.seeds == [1]


def test_a_template_answers_as_the_infiller_does_in_python(tmp_path: Path):
    (tmp_path / "p.txt").write_text("Rate the text ({{mask:4}}).\n")
    options = ["--infiller", "embedded", "-n", "2", "--temperature", "0.5", "--seed", "7", "--json"]
    found = json.loads(ran(str(tmp_path / "p.txt"), *options).stdout)
    (region,) = found["regions"]
    canvas = Canvas((Message("system", ("Rate the text (", Masked(4), ").")),))
    infiller = DiffusionInfiller(load("embedded"), Denoising(temperature=0.5))
    (fillings,) = infiller.infill([canvas], num_candidates=2, seed=7)
    best = max(fillings, key=lambda filling: filling.log_likelihood)
    assert found["infiller"] == infiller.name
    assert region["masks"] == [4]
    assert region["candidates"][0] == {
        "prompt": f"Rate the text ({best.texts[0]}).",
        "texts": list(best.texts),
        "log_likelihood": pytest.approx(best.log_likelihood),
        "num_passes": best.num_passes,
    }


def test_a_file_that_is_not_there_is_named(scripted: ScriptedInfiller):
    with pytest.raises(SettingsError, match=r"can be read; got none.txt: No such file or directory"):
        ran("none.txt")
    Path("latin.txt").write_bytes(b"\xe4")
    with pytest.raises(SettingsError, match=r"got latin.txt: no UTF-8 text"):
        ran("latin.txt")
