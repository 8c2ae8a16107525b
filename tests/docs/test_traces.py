"""The page docs/traces.md: its Python runs as it is written, from top to bottom."""

from dspy_diffusion_infill.prompts.program import instructions_of
from tests.pages import DOCS, blocks, run

PAGE = DOCS / "traces.md"


def test_the_page_leads_from_a_log_file_to_a_better_prompt(monkeypatch):
    monkeypatch.chdir(DOCS)
    first, *others = blocks(PAGE, "python")
    names: dict = {}
    run(PAGE, names, [first])
    assert len(names["log"].traces) == 8
    assert names["log"].refused == []
    found = names["tuned"].detailed_results
    assert (found["score_before"], found["score_after"]) == (0.5, 0.875)
    assert instructions_of(names["tuned"])["self"] == "Rate the text (1-5)."
    assert found["metric_calls"] <= 80
    run(PAGE, names, others)
    assert names["optimizer"].redact("ann.b@x.org has password=abcd1234") == "[address] has password[hidden]"


def test_the_ten_lines_are_no_more():
    first, *_ = blocks(PAGE, "python")
    steps = [line for line in first.code.partition("\n\nprint(")[0].splitlines() if line.strip()]
    assert len([line for line in steps if not line.startswith(("import", "from"))]) <= 10
