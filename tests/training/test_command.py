"""`diffusion-infill train`, from its options to a checkpoint."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from accelerate import PartialState
from typer.testing import CliRunner, Result

from dspy_diffusion_infill.cli import app
from dspy_diffusion_infill.engine.model import load
from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.training import command, finetune, saving, start
from dspy_diffusion_infill.training.settings import Settings
from tests.training.conftest import write_rows

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def options(checkpoint: Path, tmp_path: Path) -> list[str]:
    rows = [{"prompt": f"made-up review number {n}", "response": str(n % 5)} for n in range(12)]
    data = write_rows(tmp_path / "data.jsonl", rows)
    return [
        "train", "--model", str(checkpoint), "--data", data, "--output", str(tmp_path / "out"),
        "--batch", "4", "--num-batches", "2", "--held-out", "2", "--max-tokens", "64", "--cpu",
    ]  # fmt: skip


def test_a_dry_run_prints_what_training_takes_and_writes_nothing(options: list[str], tmp_path: Path):
    ran = CliRunner().invoke(app, [*options, "--dry-run"], catch_exceptions=False)
    assert ran.exit_code == 0
    assert "stage fs  20 updates of 4 examples" in ran.output  # 8 epochs of 10 examples
    assert "stage ro  10 updates of 4 examples" in ran.output
    assert "memory" in ran.output
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("out")] == []


def test_the_command_leaves_a_checkpoint(options: list[str], tmp_path: Path):
    chosen = [*options, "--stages", "ro", "--updates", "1", "--mix", "0.5", "--stratify"]
    ran = CliRunner().invoke(
        app, [*chosen, "--weighting", "inverse_t", "--save-updates", "1"], catch_exceptions=False
    )
    assert ran.exit_code == 0
    assert f"Checkpoint: {tmp_path / 'out'}" in ran.output
    assert load(str(tmp_path / "out"), device="cpu").context_length == 512
    card = (tmp_path / "out" / "README.md").read_text()
    for line in (
        "| mix | 0.5 |",
        "| weighting | inverse_t |",
        "| save_updates | 1 |",
        "| stages | ('ro',) |",
    ):
        assert line in card


def test_weights_that_are_no_numbers_are_refused(options: list[str]):
    with pytest.raises(SettingsError, match="weights must be numbers with commas between; got 'half'"):
        CliRunner().invoke(app, [*options, "--weights", "half"], catch_exceptions=False)


def invoke(options: list[str], *more: str) -> Result:
    return CliRunner().invoke(app, [*options, *more], catch_exceptions=False)


@pytest.mark.parametrize("tflops", ["0", "-5", "nan"])
def test_what_can_be_refused_at_once_is_refused_before_anything_is_read(
    options: list[str], tmp_path: Path, tflops: str
):
    nowhere = [*options, "--model", "/nowhere", "--dry-run"]
    with pytest.raises(SettingsError, match="tflops must be above 0 and finite"):
        invoke(nowhere, "--tflops", tflops)
    with pytest.raises(SettingsError, match="output must not exist yet"):
        invoke(nowhere, "--output", str(tmp_path))
    with pytest.raises(
        SettingsError, match=r"output must lie in a folder; got .*, but .*data\.jsonl' is a file"
    ):
        invoke(nowhere, "--output", str(tmp_path / "data.jsonl" / "out"))
    with pytest.raises(SettingsError, match=r"push_to_hub must be a hub id .*got 'not valid!'"):
        CliRunner().invoke(app, [*nowhere[:-1], "--push-to-hub", "not valid!"], catch_exceptions=False)


def test_an_output_among_the_data_is_refused(options: list[str], tmp_path: Path):
    (tmp_path / "data").mkdir()
    among = [*options, "--data", str(tmp_path / "data"), "--output", str(tmp_path / "data" / "model")]
    with pytest.raises(SettingsError, match="output must lie outside the data"):
        invoke(among)
    with pytest.raises(SettingsError, match="got an empty text"):
        invoke([*options, "--data", ""])


def test_a_batch_alone_is_split_as_the_papers_is(options: list[str]):
    at = options.index("--batch")
    ran = invoke([*options[:at], *options[at + 4 :]], "--batch", "3", "--dry-run")
    assert "updates of 3 examples" in ran.output


@pytest.mark.parametrize("main", [True, False])
def test_the_first_process_alone_uploads_and_to_a_private_repository(
    options: list[str], main: bool, monkeypatch: pytest.MonkeyPatch
):
    made: list[object] = []
    monkeypatch.setattr(saving, "whoami", lambda: {"name": "me"})
    monkeypatch.setattr(saving, "create_repo", lambda name, **how: made.append((name, how)) or "address")
    monkeypatch.setattr(saving, "upload_folder", lambda **_: None)
    monkeypatch.setattr(finetune, "finetune", lambda *_: None)
    monkeypatch.setattr(PartialState, "is_main_process", main)
    ran = invoke(options, "--push-to-hub", "me/model")
    assert made == [("me/model", {"exist_ok": True, "private": True})] * main
    assert ("Uploaded: address" in ran.output) is main


@pytest.mark.parametrize("error", [httpx.ConnectError("no name"), OSError("offline mode")])
def test_a_hub_that_cannot_be_reached_is_said_before_anything_is_trained(
    options: list[str], tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
):
    def unreachable():
        raise error

    monkeypatch.setattr(saving, "whoami", unreachable)
    with pytest.raises(SettingsError, match=r"can be reached; 'me/model' cannot: (no name|offline mode)"):
        invoke(options, "--push-to-hub", "me/model")
    assert not (tmp_path / "out").exists()


def test_a_run_that_is_stopped_says_that_it_can_go_on(options: list[str], monkeypatch: pytest.MonkeyPatch):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(finetune, "finetune", stopped)
    ran = CliRunner().invoke(app, options)
    assert (ran.exit_code, "Stopped. The same line goes on" in ran.stderr) == (130, True)


def test_the_line_whose_upload_failed_uploads_what_it_trained_and_nothing_else(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    uploads: list[Path] = []

    def failing_first(folder_path: Path, **_: object):
        uploads.append(folder_path)
        if len(uploads) == 1:
            raise ConnectionError

    monkeypatch.setattr(saving, "whoami", lambda: {"name": "me"})
    monkeypatch.setattr(saving, "create_repo", lambda *_, **__: "address")
    monkeypatch.setattr(saving, "upload_folder", failing_first)
    line = [*options, "--stages", "ro", "--updates", "1"]
    with pytest.raises(ConnectionError):
        invoke(line, "--push-to-hub", "me/model")
    monkeypatch.setattr(finetune, "train", None)  # nothing is trained again
    assert "Uploaded: address" in invoke(line, "--push-to-hub", "me/model").output
    for more in ([], ["--push-to-hub", "me/model", "--seed", "1"]):
        with pytest.raises(SettingsError, match="output must not exist yet"):
            invoke(line, *more)
    assert uploads == [tmp_path / "out"] * 2


def test_naming_the_command_loads_no_torch():
    code = "import sys, dspy_diffusion_infill.training.command; print('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "False\n"
    )


@pytest.mark.parametrize(
    ("paper", "given", "split"),
    [((128, 64), 64, 32), ((128, 64), 1, 1), ((128, 64), 128, 64), ((32, 32), 48, 48), ((32, 32), 8, 8)],
)
def test_a_batch_of_another_size_is_split_into_parts_of_the_same(
    paper: tuple[int, int], given: int, split: int
):
    settings = Settings(learning_rate=1, batch=paper[0], num_batches=paper[1], max_tokens=9)
    assert command._settings(settings, {"batch": given}).num_batches == split
    assert command._settings(settings, {"batch": given, "num_batches": 1}).num_batches == 1


def test_nothing_may_be_held_out(options: list[str]):
    at = options.index("--held-out")
    ran = invoke([*options[:at], *options[at + 2 :]], "--held-out", "0", "--dry-run")
    assert "stage fs  24 updates of 4 examples" in ran.output  # 8 epochs of 12


def test_weights_streams_and_speeds_reach_the_plan(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked: list[dict[str, Any]] = []
    prepare, read_start = finetune.prepare, start.read_start

    def preparing(*given: Any, **how: Any):
        asked.append(how)
        return prepare(*given, **how)

    def reading(source: str, *, weights: bool):
        asked.append({"read": weights})
        return read_start(source, weights=weights)

    monkeypatch.setattr(finetune, "prepare", preparing)
    monkeypatch.setattr(start, "read_start", reading)
    other = write_rows(tmp_path / "b.jsonl", [{"prompt": f"other {n}", "response": "1"} for n in range(12)])
    line = [*options, "--data", other, "--weights", "3,1", "--streaming", "--updates", "2", "--dry-run"]
    line[line.index("--held-out") + 1] = "4"
    ran = invoke(line, "--tflops", "7")
    assert asked == [{"read": False}, {"weights": [3.0, 1.0], "streaming": True}]
    assert "at 7 TFLOP/s" in ran.output
    assert "a stream, not counted" in ran.output


def test_a_dry_run_asks_nothing_of_the_hub(options: list[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(saving, "whoami", lambda: 1 / 0)
    assert "memory" in invoke(options, "--push-to-hub", "me/model", "--dry-run").output


def test_an_output_deep_among_the_data_is_refused_also_by_a_relative_name(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for source in ("data", str(tmp_path / "data"), "~/data"):
        for output in ("data/deep/model", str(tmp_path / "data" / "deep" / "model")):
            with pytest.raises(SettingsError, match="output must lie outside the data"):
                invoke([*options, "--data", source, "--output", output])
