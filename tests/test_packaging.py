"""What a user gets: what the wheel holds, and what installing it does to a DSPy project. No network."""

import os
import subprocess
import sys
import tomllib
import venv
from collections.abc import Iterable
from importlib import metadata
from itertools import chain
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

Pins = dict[str, str]
"""Canonical name -> version."""


def run(*command: str | Path) -> str:
    """Run a command, with pip blind to every index and setting; return what it printed."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    env |= {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    answer = subprocess.run(command, env=env, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return answer.stdout


def pip(python: Path, *arguments: str | Path) -> str:
    return run(sys.executable, "-m", "pip", "--python", python, *arguments)


def needed_by(*requirements: str) -> set[str]:
    """Names of the distributions that the requirements bring, themselves included, as installed here."""
    done, todo = set(), [Requirement(requirement) for requirement in requirements]
    while todo:
        requirement = todo.pop()
        for extra in ("", *requirement.extras):
            if (requirement.name, extra) not in done:
                done.add((requirement.name, extra))
                needs = map(Requirement, metadata.requires(requirement.name) or ())
                todo += [need for need in needs if not need.marker or need.marker.evaluate({"extra": extra})]
    return {name for name, _ in done}


def site_packages(python: Path) -> Path:
    return Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())


def lend(names: Iterable[str], folder: Path) -> None:
    """Install distributions of this environment in another, by links: no copy, no network."""
    for distribution in map(metadata.distribution, names):
        tops = {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}
        for link in (folder / top for top in tops):
            if not link.exists():
                link.symlink_to(distribution.locate_file(link.name))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def dspy_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that holds DSPy, everything DSPy brings, and nothing else."""
    folder = tmp_path_factory.mktemp("project") / "venv"
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    lend(needed_by("dspy"), site_packages(python))
    return python


def held(python: Path) -> Pins:
    """What an environment holds."""
    found = metadata.distributions(path=[str(site_packages(python))])
    return {canonicalize_name(one.name): one.version for one in found}


@pytest.fixture(scope="module")
def installed(wheel: Path, dspy_project: Path) -> tuple[Pins, Pins]:
    """What the environment held before the wheel was installed in it, and what it holds since."""
    before = held(dspy_project)
    pip(dspy_project, "install", "--no-compile", wheel)
    return before, held(dspy_project)


def unmet(requirements: Iterable[str], pins: Pins) -> list[str]:
    """Requirements that the pins do not fulfil, those of the project on its own extras aside."""
    needs = [Requirement(text) for text in requirements if not text.startswith(PROJECT["name"])]
    pinned = {need: pins.get(canonicalize_name(need.name)) for need in needs}
    return [str(need) for need, pin in pinned.items() if not pin or pin not in need.specifier]


def lock_pins() -> Pins:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pairs = (line.split("==") for line in lines if not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


@pytest.mark.slow
def test_the_wheel_adds_only_itself_to_a_dspy_project(installed: tuple[Pins, Pins], dspy_project: Path):
    before, after = installed
    assert after == {**before, "dspy-diffusion-infill": metadata.version("dspy-diffusion-infill")}
    assert "dspy" in before
    assert "torch" not in after
    run(dspy_project, "-I", "-c", "from dspy_diffusion_infill import DiffusionInfill; DiffusionInfill")


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
def test_the_command_without_its_extra_says_what_to_install(dspy_project: Path):
    command = dspy_project.parent / "diffusion-infill"
    answer = subprocess.run([command, "--help"], capture_output=True, text=True, check=False)
    assert answer.returncode != 0
    assert answer.stderr.strip().splitlines()[-1].endswith("pip install 'dspy-diffusion-infill[cli]'.")
    assert "Traceback" not in answer.stderr


ONE_LINER = """
from dspy.teleprompt import COPRO
from dspy_diffusion_infill import Budget, DiffusionInfill

def copro(system, user):
    if "proposed_instruction" not in system:
        return "[[ ## rating ## ]]\\n" + obey(system, user)
    fields = ("proposed_instruction", "proposed_prefix_for_output_field")
    return "\\n".join(f"[[ ## {field} ## ]]\\nRate it warm:" for field in fields)

dspy.configure(lm=rule_lm(copro))
program, trainset = dspy.Predict(dspy.Signature("review -> rating", "Rate the text.")), reviews(8)

base = COPRO(metric=exact, breadth=2, depth=1)
tuned = DiffusionInfill(base=base, budget=Budget(metric_calls=40)).compile(program, trainset=trainset)

assert "torch" not in __import__("sys").modules
print(tuned.signature.instructions)
print(len(tuned.trial_logs))
"""


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
def test_with_a_served_model_the_plain_wheel_optimizes_a_program(dspy_project: Path):
    pytest.importorskip("fastapi")
    from dspy_diffusion_infill.engine.model import load
    from dspy_diffusion_infill.serving.server import create_app
    from tests.serving.conftest import live

    with live(create_app(load("embedded", device="cpu"), name="embedded")) as url:
        program = (ROOT / "tests" / "doubles.py").read_text() + ONE_LINER
        env = {**os.environ, "DIFFUSION_INFILL_URL": url, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        command = [dspy_project, "-I", "-c", program]
        answer = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600, check=False)
    assert answer.returncode == 0, answer.stderr
    assert int(answer.stdout.split()[-1]) >= 1


@pytest.mark.slow
def test_the_wheel_holds_the_package_with_its_assets_and_nothing_else(wheel: Path):
    files = (file for file in (ROOT / "dspy_diffusion_infill").rglob("*") if file.is_file())
    ours = {file.relative_to(ROOT).as_posix() for file in files if file.suffix != ".pyc"}
    held = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == ours
    assert "dspy_diffusion_infill/py.typed" in held


def test_every_extra_but_those_of_developers_and_ray_is_part_of_all():
    extras = PROJECT["optional-dependencies"]
    reached, todo = set(), ["all"]
    while todo:
        reached.add(extra := todo.pop())
        own = (Requirement(text) for text in extras[extra] if text.startswith(PROJECT["name"]))
        todo += [name for need in own for name in need.extras]
    assert reached == extras.keys() - {"dev", "docs", "ray"}  # Ray is large, and for clusters


def test_the_lock_fits_what_the_project_asks_for():
    extras = PROJECT["optional-dependencies"]
    parts = [PROJECT["dependencies"], *(extras[name] for name in extras.keys() - {"ray"})]
    assert unmet(chain.from_iterable(parts), lock_pins()) == []
    assert unmet(["dspy>=3.1,<3.5", "ruff"], {"dspy": "3.5.0"}) == ["dspy<3.5,>=3.1", "ruff"]


def test_the_lock_pins_exactly_and_names_no_index():
    lines = (ROOT / "requirements.lock").read_text().splitlines()[1:]
    assert [line for line in lines if line.count("==") != 1 or "+" in line or "/" in line] == []
    assert lock_pins()["torch"] == "2.13.0"
