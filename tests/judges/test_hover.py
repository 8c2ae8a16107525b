"""The HoVer benchmark: three hops, a verdict, and runs that failed are no score."""

import json
from pathlib import Path

import dspy
import pytest

from benchmarks import hover
from benchmarks.hover_program import HoverMultiHop, measures
from benchmarks.passages import Passages
from dspy_diffusion_infill import CompactAdapter
from dspy_diffusion_infill.errors import EvaluationError
from tests.doubles import rule_lm

ROWS = [("Rain", "Water falls from clouds."), ("Sun", "A star burns."), ("Moon", "It orbits the Earth.")]


def program(**settings) -> HoverMultiHop:
    return HoverMultiHop(Passages(ROWS), num_passages=1, reasoning=False, **settings)


def steps(answers: dict[str, str], seen: list[str]):
    """Answers each step by a word of its instructions."""

    def answer(system: str, user: str) -> str:
        seen.append(user)
        return next(text for word, text in answers.items() if word in system)

    return rule_lm(answer)


ANSWERS = {
    "`context`": "It is a star.",
    "SUPPORTED": "not supported.",
    "`summary`": "It falls.",
    "`summary_2`": "moon",
}
ANSWERS |= {"`query`": "star"}


def test_each_hop_asks_for_what_the_last_one_lacked():
    seen = []
    with dspy.context(lm=steps(ANSWERS, seen), adapter=CompactAdapter()):
        found = program()(claim="Rain falls on the moon.")
    assert found.titles[1:] == ["Sun", "Moon"]
    assert len(found.titles) == 3
    assert found.label == "not supported."
    assert "Sun | A star burns." in seen[2]
    assert "summary_1: It falls." in seen[3]
    assert "summary_2: It is a star." in seen[3]


def test_long_passages_are_cut_to_a_number_of_words():
    seen = []
    with dspy.context(lm=steps(ANSWERS, seen), adapter=CompactAdapter()):
        program(words=2)(claim="Rain")
    assert seen[0].endswith("Rain | Water falls")


def test_measures_are_of_titles_and_label():
    example = dspy.Example(gold=["Rain", "Sun"], label="NOT_SUPPORTED")
    found = dspy.Prediction(titles=["Sun", "Moon", "Sun", "Earth"], label=" not supported. ")
    assert measures(example, found) == {"recall": 0.5, "all_gold": 0, "f1": 0.4, "label": 1}
    assert measures(example, dspy.Prediction(titles=["Sun", "Rain"], label="SUPPORTED")) == {
        "recall": 1, "all_gold": 1, "f1": 1, "label": 0
    }  # fmt: skip


def claims(count: int) -> list[dict]:
    return [
        {
            "claim": f"Claim {n}: stars.",
            "supporting_facts": [["Sun", 0], ["Rain", 1], ["Moon", 0]],
            "num_hops": 3,
            "hpqa_id": str(n // 2),
            "label": "SUPPORTED",
            "wiki_covered": n != 1,
        }
        for n in range(count)
    ]


def test_claims_of_one_question_are_never_parted():
    dev, test = hover.split(claims(40))
    assert (len(dev), len(test)) == (4, 36)
    assert not {claim["hpqa_id"] for claim in dev} & {claim["hpqa_id"] for claim in test}
    assert hover.split(claims(40)) == (dev, test)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    (tmp_path / "hover_dev.jsonl").write_text("".join(json.dumps(claim) + "\n" for claim in claims(42)))
    passages = "".join(json.dumps({"title": title, "text": text}) + "\n" for title, text in ROWS)
    (tmp_path / "hover_wiki.jsonl").write_text(passages)
    (tmp_path / "hover_wiki_distractors.jsonl").write_text("")

    def run(lm) -> tuple[list[dict], str]:
        monkeypatch.setattr(hover, "lm_of", lambda *names, **settings: lm)
        arguments = ["--data", tmp_path, "--methods", "baseline", "--limit", 6, "--shots", 2, "--threads", 1]
        arguments += ["--resume", tmp_path / "run", "--json", tmp_path / "found.json"]
        hover.main([str(argument) for argument in arguments])
        return json.loads((tmp_path / "found.json").read_text())["rows"], capsys.readouterr().out

    return run


def test_a_claim_whose_run_failed_is_unscored(run):
    def answer(system: str, user: str) -> str:
        return "" if "Claim 2" in user else "SUPPORTED"

    (row,), shown = run(rule_lm(answer))
    assert row["n"] == 6
    assert row["recall"] == row["label"] == 1
    failed = sum("Claim 2" in claim["claim"] for claim in hover.split(claims(42)[:1] + claims(42)[2:])[1][:6])
    assert row["unscored"] == failed
    assert "The paper's own numbers, Table 7" in shown


def test_a_run_that_was_killed_goes_on(run):
    calls = []

    def dying(system: str, user: str) -> str:
        calls.append(user)
        if len(calls) > 12:
            raise RuntimeError("killed")
        return "SUPPORTED"

    with pytest.raises(EvaluationError, match="killed"):
        run(rule_lm(dying))
    rest = []
    (row,), _ = run(rule_lm(lambda system, user: rest.append(user) or "SUPPORTED"))
    assert row["n"] == 6
    assert len(rest) == 30 - 10  # two claims of five calls each were done
