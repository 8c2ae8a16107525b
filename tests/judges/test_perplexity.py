"""`benchmarks.perplexity`: what is scored of a judge's prompt, and how records add up."""

import json
import math
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import perplexity
from dspy_diffusion_infill.engine.likelihood import Target
from dspy_diffusion_infill.engine.model import load
from dspy_diffusion_infill.judges.templates import rubric, template

RECORD = {
    "doc_id": "a",
    "system_id": "M1",
    "source": "It rains all day .",
    "reference": "Rain .",
    "system_output": "It rains .",
    "scores": {"coherence": 5, "consistency": 5, "fluency": 4, "relevance": 4},
}


@pytest.fixture(scope="module")
def model():
    return load("embedded")


def options(**more) -> Namespace:
    return Namespace(words=None, scored="prompt", **more)


def test_the_prompt_s_own_tokens_are_scored_or_those_of_the_reply(model):
    told = template("c-gen").with_rubric(rubric("summeval-overall"))
    whole = perplexity.target(model, RECORD, told, options())
    assert model.vocabulary.decode([whole.ids[n] for n in whole.scored]).strip().endswith("(1-5).")
    reply = perplexity.target(model, RECORD, told, Namespace(words=None, scored="reply"))
    assert len(reply.scored) < len(whole.scored)
    assert "4.5" in model.vocabulary.decode([reply.ids[n] for n in reply.scored])


def test_articles_are_cut_to_a_number_of_words():
    told = template("c-gen").with_rubric(rubric("summeval-overall"))
    assert "Source Text:\nIt rains\nReference" in perplexity.prompt(RECORD, told, 2)


def test_perplexity_is_per_token_over_all_records():
    found = perplexity.interval(np.array([[3 * math.log(2), 3], [math.log(32), 1]]), 200)
    assert found["perplexity"] == pytest.approx(4)  # 8 nats of log 2 over 4 tokens
    assert (found["low"], found["high"]) == (pytest.approx(2), pytest.approx(32))


class Uniform:
    """Finds every one of eleven tokens as likely: its perplexity is eleven."""

    context_length, mask_token_id, device, vocabulary = 512, 10, torch.device("cpu"), None

    def logits(self, ids, attention_mask, wanted):
        return torch.zeros(int(wanted.sum()), 11)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_interval_counts_the_estimator_s_own_error_in(seed, tmp_path: Path, monkeypatch):
    """Draws that all records shared made it 31 [30, 32] or 6 [5.7, 6], by the seed."""
    data = tmp_path / "summeval.jsonl"
    data.write_text("".join(json.dumps({**RECORD, "doc_id": str(n)}) + "\n" for n in range(60)))
    monkeypatch.setattr(perplexity, "target", lambda *_: Target([1] * 300, range(300)))
    told = options(data=data, limit=None, estimator="log_linear", samples=32, seed=seed, resamples=200)
    found = perplexity.measured(Uniform(), "uniform", "c-gen", told)
    assert 7 < found["low"] < 11 < found["high"] < 20


def test_an_interval_needs_a_sample(capsys):
    with pytest.raises(SystemExit):
        perplexity.main(["--resamples", "0"])
    assert "--resamples must be at least 1; got 0." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (["--templates", "c-gen", "cgen"], "template must be one of "),
        (["--models", "embedded", "/no/such/folder"], "no such folder"),
        (["--limit", "0"], "--limit must be at least 1; got 0."),
    ],
)
def test_names_are_checked_before_the_first_measurement(wrong, told, capsys, monkeypatch):
    monkeypatch.setattr(perplexity, "measured", lambda *_: 1 / 0)
    with pytest.raises(SystemExit):
        perplexity.main(wrong)
    assert told in capsys.readouterr().err


@pytest.mark.slow
def test_what_does_not_fit_is_left_out_and_counted(tmp_path: Path, capsys):
    data = tmp_path / "summeval.jsonl"
    long = {**RECORD, "doc_id": "b", "source": "rain " * 20_000}
    data.write_text("".join(json.dumps(record) + "\n" for record in (RECORD, long)))
    arguments = ["--data", data, "--samples", 2, "--templates", "c-gen", "--json", tmp_path / "found.json"]
    perplexity.main([str(argument) for argument in arguments])
    (row,) = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert (row["n"], row["left_out"]) == (1, 1)
    assert row["perplexity"] > 1
    assert "The paper's own numbers, Table 3b" in capsys.readouterr().out
