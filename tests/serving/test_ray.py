"""Two replicas of the embedded model on a real Ray, on CPUs; one is killed. Run by `make ray`."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from dspy_diffusion_infill.engine.infiller import DiffusionInfiller
from dspy_diffusion_infill.engine.model import load
from dspy_diffusion_infill.errors import InfillerUnavailableError
from dspy_diffusion_infill.prompts.canvas import Canvas, Denoising, Masked, Message
from dspy_diffusion_infill.serving.client import RemoteInfiller

pytestmark = pytest.mark.ray
pytest.importorskip("ray", reason="needs Ray in an environment of its own: make ray")

ROOT = Path(__file__).parents[2]
KEY = "sesame"
HOW = Denoising(temperature=0.5, cache="exact")
PATIENCE_S = float(os.environ.get("DIFFUSION_INFILL_RAY_S") or 420)


def canvas(number: int) -> Canvas:
    return Canvas((Message("system", (f"Rate text {number} from", Masked(6), ".")),))


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def wait_for(found: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not found():
        assert time.monotonic() < end, f"{what}: not within {PATIENCE_S:g} s"
        time.sleep(0.3)


class Cluster:
    """A Ray of its own, with the application on it."""

    def __init__(self, folder: Path) -> None:
        self.url, self.pages = f"http://127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}/metrics"
        env = {
            **os.environ,
            "DIFFUSION_INFILL_API_KEY": KEY,
            "HOME": str(folder),  # Ray keeps a token of its own there
            "PYTHONPATH": str(ROOT),
            "RAY_TMPDIR": str(folder),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        code = STARTED.format(
            port=self.url.rpartition(":")[2], metrics=self.pages.split(":")[2].split("/")[0]
        )
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code], cwd=folder, env=env, stdout=log, stderr=log
            )

    def replicas(self) -> list[psutil.Process]:
        """The processes that hold a model."""
        own = psutil.Process(self.process.pid).children(recursive=True)
        return [one for one in own if "ServeReplica" in "".join(named(one))]

    def counted(self) -> dict[str, float]:
        """By replica, the infill requests that Ray's metrics say it answered well."""
        text = httpx.get(self.pages, timeout=30).text
        lines = re.findall(r"^ray_diffusion_infill_requests_total\{(.*)\} ([\d.]+)$", text, re.MULTILINE)
        labels = [(dict(re.findall(r'(\w+)="([^"]*)"', line)), float(value)) for line, value in lines]
        return {
            each["replica"]: value
            for each, value in labels
            if each["route"] == "/v1/infill" and each["status"] == "200" and value
        }

    def ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return httpx.get(f"{self.url}/health", timeout=30).status_code == 200
        except httpx.TransportError:
            return False


STARTED = """
import threading, ray
from ray import serve
from dspy_diffusion_infill.serving.ray_app import app

ray.init(num_cpus=4, include_dashboard=False, _metrics_export_port={metrics}, object_store_memory=10**8)
serve.start(http_options={{"port": {port}}})
serve.run(app({{"model": "embedded", "device": "cpu", "replicas": "2"}}))
threading.Event().wait()
"""


def named(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:  # it has ended
        return []


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # a short path: Ray's sockets lie in it
    cluster = Cluster(folder)
    try:
        wait_for(cluster.ready, "the application")
        wait_for(lambda: len(cluster.replicas()) == 2, "two replicas")
        yield cluster
    finally:
        own = psutil.Process(cluster.process.pid).children(recursive=True)
        cluster.process.send_signal(signal.SIGTERM)
        psutil.wait_procs([*own, psutil.Process(cluster.process.pid)], timeout=20)
        for one in own:
            if one.is_running():
                one.kill()
        cluster.process.wait(20)
        shutil.rmtree(folder, ignore_errors=True)


def test_without_the_key_nothing_is_answered(cluster: Cluster):
    for key in (None, "open"):
        with pytest.raises(InfillerUnavailableError, match="401"):
            RemoteInfiller(cluster.url, api_key=key)


def test_a_replica_killed_under_load_loses_no_request(cluster: Cluster):
    asked = range(60)
    half = threading.Event()

    with (
        RemoteInfiller(cluster.url, api_key=KEY, denoising=HOW, retries=12) as there,
        ThreadPoolExecutor(8) as pool,
    ):

        def ask(number: int) -> tuple[str, ...]:
            ((one,),) = there.infill([canvas(number)], num_candidates=1, seed=number)
            if number == 30:
                half.set()
            return one.texts

        first = list(pool.map(ask, range(16)))
        wait_for(lambda: len(cluster.counted()) == 2, "both replicas in the metrics")
        assert sum(cluster.counted().values()) <= 16

        answers = [pool.submit(ask, number) for number in asked]
        assert half.wait(PATIENCE_S)
        victim = cluster.replicas()[0]
        victim.kill()
        found = [answer.result(PATIENCE_S) for answer in answers]
    assert not victim.is_running()
    here = DiffusionInfiller(load("embedded", device="cpu"), HOW)
    expected = [here.infill([canvas(n)], num_candidates=1, seed=n)[0][0].texts for n in asked]
    assert found == expected
    assert first == expected[:16]
    wait_for(lambda: len(cluster.replicas()) == 2, "a replica in the place of the one that was killed")
