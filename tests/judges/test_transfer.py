"""`benchmarks.transfer`: every model judges with every model's prompt."""

import json
from pathlib import Path

import dspy
import pytest

from benchmarks import transfer, tuning
from dspy_diffusion_infill.errors import SettingsError
from tests.doubles import ScriptedInfiller, rule_lm


def records(count: int) -> str:
    """Four dimensions alike: as many words as the summary has."""
    rows = (
        {
            "doc_id": str(n),
            "system_id": "M1",
            "source": "Rain.",
            "reference": "Rain.",
            "system_output": "word " * (n % 5) + str(n),
            "scores": dict.fromkeys(("coherence", "consistency", "fluency", "relevance"), float(n % 5 + 1)),
        }
        for n in range(count)
    )
    return "".join(json.dumps(row) + "\n" for row in rows)


def obeying(word: str):
    """A judge that counts words once its instructions hold a word."""

    def answer(system: str, user: str) -> str:
        return str(len(user.split()) if word in system else 3)

    return rule_lm(answer)


def test_every_model_judges_with_every_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    lms = {"one": obeying("words"), "two": obeying("words")}
    scripts = {"one": "Count the words", "two": "Just rate"}
    monkeypatch.setattr(transfer, "judge_of", lambda name, tokens: lms[name])
    monkeypatch.setattr(tuning, "DiffusionInfill", scripted(tuning.DiffusionInfill, scripts))
    (tmp_path / "summeval.jsonl").write_text(records(60))
    arguments = ["--models", "one", "two", "--template", "brief", "--shots", 5, "--limit", 10]
    arguments += ["--budget", "medium"]
    arguments += ["--data", tmp_path / "summeval.jsonl", "--resamples", 0, "--json", tmp_path / "found.json"]
    transfer.main([str(argument) for argument in arguments])

    rows = json.loads((tmp_path / "found.json").read_text())["rows"]
    spearman = {(row["judge"], row["method"]): row["dataset"]["spearman"]["value"] for row in rows}
    assert len(spearman) == 6  # two judges, three prompts
    assert spearman["one", "infilled by one"] == spearman["two", "infilled by one"] == pytest.approx(1)
    assert spearman["one", "infilled by nobody"] is None  # it gives everything a 3
    assert spearman["one", "infilled by two"] is None


def test_a_folder_of_other_judges_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(transfer, "judge_of", lambda name, tokens: dspy.LM("rule/other", max_tokens=tokens))
    monkeypatch.setattr(transfer, "infilled", lambda *_: {})
    (tmp_path / "summeval.jsonl").write_text(records(60))

    def run(*more: str) -> None:
        arguments = ["--data", tmp_path / "summeval.jsonl", "--shots", 5, "--models", "one", *more]
        transfer.main([str(one) for one in [*arguments, "--resume", tmp_path / "run"]])

    run()
    for more, aspect in ((["--tokens", "7"], "judges"), (["--samples", "2"], "judging")):
        with pytest.raises(SettingsError, match=f"another {aspect}"):
            run(*more)
    with pytest.raises(SettingsError, match="another judging"):
        run("--conversation", "v1")
    monkeypatch.setattr(transfer, "judge_of", lambda name, tokens: dspy.LM("rule/new", max_tokens=tokens))
    with pytest.raises(SettingsError, match="another judges"):
        run()


def scripted(optimizer, scripts: dict[str, str]):
    """The optimizer with infillers of ours, by the name of the model."""

    def make(*arguments, infiller, **settings):
        return optimizer(*arguments, infiller=ScriptedInfiller(scripts[infiller]), **settings)

    return make
