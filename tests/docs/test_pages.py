"""Every page's Python runs as it is written, from top to bottom, in an empty folder."""

from collections.abc import Iterator
from pathlib import Path

import dspy
import pytest
import typer

from dspy_diffusion_infill import __all__, cli
from tests.pages import DOCS, FENCE, NOT_RUN, ROOT, blocks, run

ELSEWHERE = {"serving.md", "command-line.md", "traces.md"}
"""Run by tests/serving/test_docs.py (a live server), tests/commands/test_page.py (with their commands), and
test_traces.py (results are looked at)."""
PAGES = [ROOT / "README.md", *sorted({*DOCS.rglob("*.md"), *DOCS.rglob("*.ipynb")})]
WITH_PYTHON = [
    page
    for page in PAGES
    if page.name not in ELSEWHERE
    and page.suffix == ".md"
    and blocks(page, "python")  # the notebook: see below
]


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The current folder; what a page configures is taken back."""
    monkeypatch.chdir(tmp_path)
    yield
    dspy.configure(lm=None, adapter=None)


@pytest.mark.usefixtures("empty")
@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: page.name)
def test_a_pages_python_runs(page: Path):
    run(page, {"__name__": "__main__"})


def test_the_notebooks_code_is_the_tutorials_which_runs():
    tutorial, notebook = (DOCS / "tutorials" / f"first-optimization.{kind}" for kind in ("md", "ipynb"))
    cells = [block.code.strip() for block in blocks(notebook, "python")]
    assert cells == [block.code.strip() for block in blocks(tutorial, "python")]
    assert len(cells) == 5
    assert tutorial in WITH_PYTHON


def test_every_page_whose_python_runs_elsewhere_is_there():
    assert all((DOCS / name).is_file() for name in ELSEWHERE)


def test_a_block_that_does_not_run_says_what_it_needs():
    titles = {block.title for page in PAGES for block in blocks(page, "python")}
    needs = {title.removeprefix(NOT_RUN) for title in titles if title}
    assert needs <= {"a GPU", "a model from the hub", "a served model", "a GPU and a model from the hub"}


def test_an_unmarked_block_that_fails_fails(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text('```python title="Not run: needs a GPU"\n1 / 0\n```\n')
    run(page, {})
    page.write_text("```python\n1 / 0\n```\n")
    with pytest.raises(ZeroDivisionError):
        run(page, {})
    page.write_text('```python title="Not run: needs a GPU"\n1 /\n```\n')
    with pytest.raises(SyntaxError):
        run(page, {})


def test_no_fence_escapes():
    for page in PAGES:
        if page.suffix == ".md":
            text = page.read_text(encoding="utf-8")
            assert len(FENCE.findall(text)) == text.count("\n```python") + sum(
                text.count(f"\n```{other}") for other in ("sh\n", "bash", "json", "text")
            ), page


def commands() -> Iterator[tuple[str, list[str]]]:
    """The lines of the pages that call our command, continued lines joined."""
    for page in PAGES:
        if page.suffix == ".md":
            text = page.read_text(encoding="utf-8").replace("\\\n", " ")
            for line in text.splitlines():
                if line.strip().startswith("diffusion-infill ") and not line.strip().endswith(","):
                    yield page.name, line.split(" -- ")[0].split()[1:]


def test_every_option_that_a_page_gives_is_there():
    group = typer.main.get_command(cli.app)
    seen = 0
    for page, words in commands():
        command = group
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        known = {"--help", "--debug"} | {name for param in command.params for name in param.opts}
        given = {word.split("=")[0] for word in words if word.startswith("--")}
        assert given <= known, (page, words, given - known)
        seen += len(given)
    assert seen > 20


def test_the_api_reference_has_every_public_name():
    text = (DOCS / "reference" / "api.md").read_text(encoding="utf-8")
    listed = {line.rsplit(".", 1)[-1] for line in text.splitlines() if line.startswith("::: ")}
    assert set(__all__) - {"__version__"} <= listed
