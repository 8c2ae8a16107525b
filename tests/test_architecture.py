"""The rules of the house, one test each; each test also shows its rule a breach that it must find."""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import dspy_diffusion_infill

ROOT = Path(__file__).parents[1]
PACKAGE = "dspy_diffusion_infill"
PURE = {
    "commands.caps",
    "commands.objects",
    "commands.regions",
    "commands.rows",
    "commands.texts",
    "errors",
    "engine.schedule",
    "file_lock",
    "judges.constraint",
    "judges.expected",
    "judges.parse",
    "judges.place",
    "judges.templates",
    "prompts.canvas",
    "prompts.candidates",
    "prompts.locks",
    "prompts.templates",
    "prompts.windows",
    "search.budget",
    "search.edits",
    "search.events",
    "search.extremes",
    "search.hardness",
    "search.journal",
    "search.left_out",
    "search.reasons",
    "search.repeats",
    "search.screening",
    "search.selection",
    "secret_forms",
    "serving.fairness",
    "serving.keys",
    "serving.limits",
    "serving.reading",
    "serving.retrying",
    "serving.wire",
    "trace_formats",
    "traces",
    "visible",
}
MAX_LINES = 250

Sources = dict[str, str]
"""Module name below the package ("engine.lm"; the package itself is "") -> source."""


def sources() -> Sources:
    files = (ROOT / PACKAGE).rglob("*.py")
    parts = {file: file.relative_to(ROOT / PACKAGE).with_suffix("").parts for file in files}
    return {".".join(part for part in parts[file] if part != "__init__"): file.read_text() for file in parts}


def imports(source: str) -> set[str]:
    """Every module that a source names in an import, also within functions."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def reached(module: str, modules: Sources) -> set[str]:
    """Everything that a module imports, itself or through modules of the package it names."""
    found, todo = set(), [module]
    while todo:
        new = imports(modules[todo.pop()]) - found
        found |= new
        todo += [own for name in new if (own := name.removeprefix(f"{PACKAGE}.")) in modules]
    return found


def within(names: set[str], *packages: str) -> set[str]:
    return {package for package in packages for name in names if f"{name}.".startswith(f"{package}.")}


def impure(modules: Sources) -> dict[str, set[str]]:
    heavy = {name: within(reached(name, modules), "dspy", "torch") for name in PURE & modules.keys()}
    return {name: found for name, found in heavy.items() if found}


def bridges(modules: Sources) -> set[str]:
    return {name for name, source in modules.items() if len(within(imports(source), "dspy", "torch")) == 2}


def engine_debts(modules: Sources) -> dict[str, set[str]]:
    above = (f"{PACKAGE}.training", f"{PACKAGE}.serving")
    engine = {name: source for name, source in modules.items() if f"{name}.".startswith("engine.")}
    return {name: found for name, source in engine.items() if (found := within(imports(source), *above))}


def public_functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.iter_child_nodes(tree):
        if getattr(node, "name", "_").startswith("_") and not getattr(node, "name", "").endswith("__"):
            continue
        if isinstance(node, ast.ClassDef):
            yield from public_functions(node)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def open_signatures(modules: Sources) -> set[str]:
    named = ((name, node) for name, source in modules.items() for node in public_functions(ast.parse(source)))
    return {f"{name}.{node.name}" for name, node in named if node.args.kwarg}


def utilities(modules: Sources) -> set[str]:
    return {name for name in modules if {"util", "utils"} & set(name.split("."))}


def long_modules(modules: Sources) -> set[str]:
    return {name for name, source in modules.items() if source.count("\n") >= MAX_LINES}


def loads(statement: str, module: str) -> bool:
    code = f"{statement}\nimport sys\nprint({module!r} in sys.modules)"
    command = [sys.executable, "-c", code]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
    return answer.stdout.split()[-1] == "True"


def newest_version(changelog: str) -> str:
    return next(line.split()[1] for line in changelog.splitlines() if line.startswith("## "))


def test_pure_modules_reach_neither_dspy_nor_torch():
    assert impure(sources()) == {}
    assert impure({"errors": "def later(): import torch.nn"}) == {"errors": {"torch"}}
    through = {"errors": f"from {PACKAGE} import optimizer", "optimizer": "from dspy.teleprompt import COPRO"}
    assert impure(through) == {"errors": {"dspy"}}


def test_only_the_diffusion_lm_knows_both_dspy_and_torch():
    assert bridges(sources()) <= {"engine.lm"}
    breach = {"optimizer": "import dspy\nimport torch", "traces": "import dspy, torchtext"}
    assert bridges(breach) == {"optimizer"}


def test_the_engine_owes_nothing_to_training_or_serving():
    assert engine_debts(sources()) == {}
    breach = {"engine.model": f"from {PACKAGE} import serving", "training.train": f"import {PACKAGE}.serving"}
    assert engine_debts(breach) == {"engine.model": {f"{PACKAGE}.serving"}}


def test_no_module_imports_the_benchmarks():
    using = {name for name, source in sources().items() if within(imports(source), "benchmarks")}
    assert using == set()
    assert within(imports("from benchmarks.tasks import summeval"), "benchmarks")


def test_naming_the_optimizer_loads_no_torch():
    assert not loads(f"from {PACKAGE} import DiffusionInfill", "torch")
    assert loads("import json.tool", "json")


def test_no_module_is_a_drawer_of_utilities():
    assert utilities(sources()) == set()
    assert utilities({"search.utils": "", "search.budget": ""}) == {"search.utils"}


def test_public_signatures_are_closed():
    assert open_signatures(sources()) == set()
    breach = (
        "class Lm:\n  def __init__(self, **k): ...\n  def _f(self, **k): ...\ndef g():\n  def h(**k): ..."
    )
    assert open_signatures({"lm": breach}) == {"lm.__init__"}


def test_modules_stay_short():
    assert long_modules(sources()) == set()
    assert long_modules({"long": "\n" * MAX_LINES, "short": "\n" * (MAX_LINES - 1)}) == {"long"}


def test_the_version_is_the_same_everywhere():
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert build["version"]["path"] == f"{PACKAGE}/_version.py"
    assert f'"{dspy_diffusion_infill.__version__}"' in sources()["_version"]
    assert newest_version(changelog) == dspy_diffusion_infill.__version__
    assert newest_version("# Changelog\n\n## 0.2.0 - 2027-01-01\n\n## 0.1.0\n") == "0.2.0"
