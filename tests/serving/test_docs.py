"""Every example in docs/serving.md, against a live server."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

from tests.pages import DOCS, blocks

BLOCKS = [(block.language, block.code) for block in blocks(DOCS / "serving.md", "python", "sh")]


def test_the_page_has_examples_of_both_kinds():
    assert {kind for kind, _ in BLOCKS} == {"python", "sh"}
    assert len(BLOCKS) == 6


@pytest.mark.parametrize(("kind", "block"), BLOCKS, ids=[f"{kind}{n}" for n, (kind, _) in enumerate(BLOCKS)])
def test_an_example_runs(url, kind, block):
    block = block.replace("http://127.0.0.1:8011", url)
    if kind == "python":
        exec(compile(block, "docs/serving.md", "exec"), {})
    elif shutil.which("curl"):
        done = subprocess.run(["bash", "-c", block], capture_output=True, check=True, timeout=120)
        assert "error" not in json.loads(done.stdout)
