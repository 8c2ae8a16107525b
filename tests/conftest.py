"""What every test starts from: no setting of the user's, no network, its own cache; and real data."""

import gc
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

_cache = tempfile.TemporaryDirectory(prefix="diffusion-infill-tests-")
for _name in ("DIFFUSION_INFILL_URL", "SSL_CERT_FILE"):
    os.environ.pop(_name, None)
os.environ |= {
    "DSPY_CACHEDIR": _cache.name,  # read when dspy is imported
    "HF_HUB_OFFLINE": "1",
    "SSL_CERT_DIR": _cache.name,  # none: every client would read all of them, which takes 50 ms
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else litellm fetches prices when imported
}

gc.disable()  # while the tests are imported: looking for garbage would be a quarter of that time


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that no core is left without work at the end."""
    items.sort(key=lambda item: "slow" not in item.keywords)


def pytest_collection_finish() -> None:
    """What was imported stays; from here on it is not looked through again for every collection."""
    gc.freeze()
    gc.enable()


settings.register_profile("suite", deadline=None)  # a busy machine is no failure
settings.load_profile("suite")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data: DIFFUSION_INFILL_DATA, else ../shared/data beside the repository.

    A test that asks for it skips where there is none, or fails if DIFFUSION_INFILL_REQUIRE_DATA is set.
    """
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("DIFFUSION_INFILL_DATA") or beside)
    if folder.is_dir():
        return folder
    reason = f"needs real data in {folder}; DIFFUSION_INFILL_DATA names another folder"
    if os.environ.get("DIFFUSION_INFILL_REQUIRE_DATA"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def vllm_python() -> Path:
    """The Python of an environment with vLLM, which DIFFUSION_INFILL_VLLM names.

    A test that asks for it skips where that is not set, and fails if it is set and there is none.
    """
    named = os.environ.get("DIFFUSION_INFILL_VLLM")
    if not named:
        pytest.skip("needs vLLM in an environment of its own: make vllm")
    python = Path(named).absolute()  # no resolve(): the environment is where the link is
    if not python.exists():
        pytest.fail(f"DIFFUSION_INFILL_VLLM must name a Python; got {named}")
    return python
