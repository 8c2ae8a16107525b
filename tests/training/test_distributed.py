"""The same update, however it is cut up: into batches, over processes, over shards."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.training import worker
from tests.training.conftest import write_rows

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def data(tmp_path: Path) -> str:
    rows = [{"prompt": f"made-up {'review ' * (n % 5)}number {n}", "response": str(n % 5)} for n in range(24)]
    return write_rows(tmp_path / "data.jsonl", rows)


def two_processes(checkpoint: Path, data: str, folder: Path) -> dict[str, list[list[torch.Tensor]]]:
    """Gradients of the loop and of shards, from one launch of two processes."""
    command = [sys.executable, "-m", "tests.training.worker", str(checkpoint), data, str(folder / "two")]
    env = {"HF_DATASETS_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, cwd=ROOT, env=os.environ | env, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return torch.load(folder / "two" / "found")


def assert_same(found: list[list[torch.Tensor]], wanted: list[list[torch.Tensor]]) -> None:
    assert len(found) == len(wanted)
    for update, other in zip(found, wanted, strict=True):
        for gradient, same in zip(update, other, strict=True):
            torch.testing.assert_close(gradient, same, atol=1e-6, rtol=1e-4)


def test_a_batch_of_eight_is_four_of_two(checkpoint: Path, data: str, tmp_path: Path):
    whole = worker.trained(str(checkpoint), data, tmp_path / "whole", num_batches=1)
    assert len(whole) == worker.NUM_UPDATES
    assert max(float(gradient.abs().max()) for gradient in whole[0]) > 1e-3
    assert_same(worker.trained(str(checkpoint), data, tmp_path / "parts", num_batches=4), whole)


@pytest.mark.slow
def test_two_processes_take_the_updates_of_one_and_two_shards_have_its_gradients(
    checkpoint: Path, data: str, tmp_path: Path
):
    one = worker.trained(str(checkpoint), data, tmp_path / "one")
    found = two_processes(checkpoint, data, tmp_path)
    assert_same(found["trained"], one)
    assert_same(found["sharded"], one[:1])


def test_an_update_that_processes_cannot_share_evenly_is_refused(
    checkpoint: Path, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ValueError, match="must be a multiple of 3, the number of processes; got 4"):
        worker.trained(str(checkpoint), data, tmp_path / "three")
