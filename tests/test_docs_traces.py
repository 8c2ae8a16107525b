"""The page docs/traces.md: its Python runs as it is written, from top to bottom."""

import re
from pathlib import Path

import pytest

from dspy_diffusion_infill.prompts.program import instructions_of

DOCS = Path(__file__).parents[1] / "docs"


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)


def test_the_page_leads_from_a_log_file_to_a_better_prompt(monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.chdir(DOCS)
    first, *others = blocks((DOCS / "traces.md").read_text(encoding="utf-8"))
    names: dict = {}
    exec(compile(first, "traces.md", "exec"), names)
    assert len(names["log"].traces) == 8
    assert names["log"].refused == []
    found = names["tuned"].detailed_results
    assert found["score_after"] >= found["score_before"]
    assert found["metric_calls"] <= 80
    assert (found["score_after"] > found["score_before"]) == (
        instructions_of(names["tuned"])["self"] != "Rate the text."
    )
    for block in others:
        exec(compile(block, "traces.md", "exec"), names)
    assert names["optimizer"].redact("ann.b@x.org has password=abcd1234") == "[address] has password[hidden]"


def test_the_ten_lines_are_no_more():
    first, *_ = blocks((DOCS / "traces.md").read_text(encoding="utf-8"))
    steps = [line for line in first.partition("\n\nprint(")[0].splitlines() if line.strip()]
    assert len([line for line in steps if not line.startswith(("import", "from"))]) <= 10
