"""How benchmarks tune: every method within the same calls, by writers with room; a failure is a row."""

import json
from pathlib import Path

import dspy
import pytest
from dspy.signatures.signature import make_signature

from benchmarks import sentiment, tuning
from benchmarks.tuning import Tuned, Tuning, tuned
from dspy_diffusion_infill import CompactAdapter
from tests.doubles import ScriptedInfiller, rule_lm

SHOTS = [dspy.Example(sentence=f"s{n}", label="good").with_inputs("sentence") for n in range(4)]


class Writing:
    """COPRO's and GEPA's writer: each time another instruction."""

    def __init__(self) -> None:
        self.written = 0

    def __call__(self, system: str, user: str) -> str:
        self.written += 1
        if "proposed_instruction" not in system + user:
            return f"```\nBetter {self.written}.\n```"
        told = {"proposed_instruction": f"Better {self.written}.", "proposed_prefix_for_output_field": "x:"}
        return json.dumps(told)


def tune(method: str, lm, adapter=None, **settings) -> tuple[Tuned, int]:
    """What a method found, and how often the metric was called."""
    calls = []

    def metric(example, found, trace=None, pred_name=None, pred_trace=None):
        calls.append(found)
        return sentiment.labelled(example, found)

    told = {
        "infiller": ScriptedInfiller("a", "b", "c", "d"),
        "proposer": None,
        "budget": "light",
        "threads": 1,
    }
    program = dspy.Predict(make_signature("sentence -> label", "Label it."))
    with dspy.context(lm=lm, adapter=adapter or dspy.JSONAdapter()):
        found = tuned(program, method, SHOTS, Tuning(metric=metric, folder=None, **told | settings), 0)
    return found, len(calls)


@pytest.mark.parametrize("method", ["copro", "gepa"])
def test_a_method_alone_may_spend_what_infilling_may_and_says_what_it_spent(method: str):
    found, calls = tune(method, rule_lm(lambda *_: '{"label": "bad"}'), proposer=rule_lm(Writing()))
    assert found.failed is None
    assert found.metric_calls == calls == 40


def test_who_writes_prompts_is_the_lm_that_is_asked_with_room_to_write():
    lm = dspy.LM("rule/test", max_tokens=16, cache=False)
    told = Tuning(metric=len, infiller="", proposer=None, budget="light", threads=1, folder=None)
    with dspy.context(lm=lm):
        writer = tuning._base("copro", told, 0).prompt_model
    assert (writer.model, writer.kwargs["max_tokens"], lm.kwargs["max_tokens"]) == ("rule/test", 2048, 16)


@pytest.mark.parametrize("method", ["copro", "copro+infill"])
def test_a_base_that_failed_is_told_and_nothing_is_taken_for_its_program(method: str):
    found, _ = tune(method, rule_lm(lambda system, user: "bad"), adapter=CompactAdapter())
    assert found.program is None
    assert (found.failed or "").startswith("COPRO failed: ")


def test_the_other_methods_go_on_and_the_result_is_written(tmp_path: Path, monkeypatch, capsys):
    for part in ("train", "dev"):
        row = {"text": "Fine.", "label_name": "good"}
        (tmp_path / f"sst2_{part}.jsonl").write_text((json.dumps(row) + "\n") * 8)
    monkeypatch.setattr(sentiment, "lm_of", lambda *names, **settings: rule_lm(lambda *_: "good"))
    arguments = ["--data", tmp_path, "--shots", 4, "--threads", 1, "--json", tmp_path / "found.json"]
    sentiment.main([*map(str, arguments), "--methods", "copro", "baseline"])
    failed, kept = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert failed["failed"].startswith("COPRO failed: ")
    assert (failed["accuracy"], failed["instructions"], failed["unscored"]) == (None, None, 8)
    assert (kept["accuracy"], kept["failed"], kept["metric_calls"]) == (1.0, None, 0)
    assert "COPRO failed: " in capsys.readouterr().out
