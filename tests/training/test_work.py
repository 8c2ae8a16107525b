"""The folder of a run's work: one run at a time."""

from pathlib import Path

import pytest

from dspy_diffusion_infill.errors import InfillError, SettingsError
from dspy_diffusion_infill.training.work import (
    as_record,
    begun,
    check_output,
    finish,
    read_record,
    work_folder,
)

RECORD = as_record({"model": "tiny", "data": ["rows.jsonl"], "seed": 0})


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.mark.parametrize("seed", [0, 1])
def test_a_second_run_into_an_output_is_refused_while_the_first_is_at_work(tmp_path: Path, seed: int):
    output = tmp_path / "out"
    with begun(output, RECORD):
        before = contents(work_folder(output))
        with (
            pytest.raises(
                SettingsError, match=r"out-work' must be used by one run at a time; another one uses"
            ),
            begun(output, RECORD | {"seed": seed}),
        ):
            pass
        assert contents(work_folder(output)) == before
    with begun(output, RECORD | {"seed": seed}):
        pass


@pytest.mark.parametrize("part", ["mkdir", "write_text"])
def test_a_disk_that_is_full_at_the_start_is_said_in_one_sentence(
    tmp_path: Path, part: str, monkeypatch: pytest.MonkeyPatch
):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, part, full)
    with (
        pytest.raises(InfillError, match=r"must take '.*out-work'.*No space left"),
        begun(tmp_path / "out", RECORD),
    ):
        pass


def test_a_run_that_waited_for_one_that_finished_finds_its_output_taken(tmp_path: Path):
    output = tmp_path / "out"
    with begun(output, RECORD):
        done = work_folder(output) / "0-fs-done"
        done.mkdir()
        finish(work_folder(output), done, output)
        assert not work_folder(output).exists()
    with pytest.raises(SettingsError, match="output must not exist yet"), begun(output, RECORD):
        pass


def test_an_output_may_lie_in_folders_that_are_yet_to_be_made(tmp_path: Path):
    check_output(tmp_path / "runs" / "first" / "out")


def test_a_finished_run_leaves_its_record_in_the_output_and_other_stages_nowhere(tmp_path: Path):
    output = tmp_path / "out"
    with begun(output, RECORD):
        work = work_folder(output)
        for name in ("0-fs", "0-fs-done", "1-ro", "1-ro-done"):
            (work / name).mkdir()
        finish(work, work / "1-ro-done", output)
    assert read_record(output) == RECORD
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
