"""The pages of documentation, and the blocks of code on them."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
NOT_RUN = "Not run: needs "
"""How the title of a block begins that the tests only compile; readers see it above the code."""


@dataclass(frozen=True)
class Block:
    """A fenced block, or a code cell of a notebook."""

    language: str
    title: str
    code: str

    @property
    def runs(self) -> bool:
        return not self.title.startswith(NOT_RUN)


def blocks(page: Path, *languages: str) -> list[Block]:
    """The blocks of a page in these languages, from top to bottom; all without any."""
    text = page.read_text(encoding="utf-8")
    found = _cells(text) if page.suffix == ".ipynb" else _fences(text)
    return [block for block in found if not languages or block.language in languages]


def run(page: Path, names: dict, found: list[Block] | None = None) -> None:
    """Compile every Python block of a page, and run those that are not marked, one after the other."""
    for number, block in enumerate(blocks(page, "python") if found is None else found, 1):
        code = compile(block.code, f"{page.name}, block {number}", "exec")
        if block.runs:
            exec(code, names)


def _fences(text: str) -> list[Block]:
    return [Block(language, _title(rest), code) for language, rest, code in FENCE.findall(text)]


def _title(rest: str) -> str:
    return "".join(re.findall(r'title="([^"]*)"', rest))


def _cells(text: str) -> list[Block]:
    cells = json.loads(text)["cells"]
    return [Block("python", "", "".join(cell["source"])) for cell in cells if cell["cell_type"] == "code"]
