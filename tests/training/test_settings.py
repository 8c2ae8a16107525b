"""Settings, what a dry run says of them, and the card."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.training import dry_run as estimates
from dspy_diffusion_infill.training.card import model_card
from dspy_diffusion_infill.training.dry_run import dry_run, memory_gib
from dspy_diffusion_infill.training.finetune import record_of
from dspy_diffusion_infill.training.mixing import Counts
from dspy_diffusion_infill.training.settings import Settings, check_report, defaults
from dspy_diffusion_infill.training.start import read_start

SETTINGS = Settings(
    learning_rate=1e-2, batch=4, num_batches=2, max_tokens=64, updates=2, held_out=2, use_cpu=True
)


@pytest.mark.parametrize(
    ("odd", "why"),
    [
        ({"stages": ()}, "stages must be some of fs, ro"),
        ({"mix": -0.1}, "mix must be at least 0"),
        ({"num_batches": 0}, "num_batches must be between 1 and batch"),
        ({"held_out": -1}, "held_out must be at least 0; got -1"),
        ({"lora": -1}, "lora must be at least 0; got -1"),
        ({"warmup_updates": -1}, "warmup_updates must be at least 0; got -1"),
        ({"monitor_updates": 0}, "monitor_updates must be above 0"),
        ({"save_updates": 0}, "save_updates must be above 0"),
    ],
)
def test_settings_that_would_end_a_run_are_refused(odd: dict[str, Any], why: str):
    with pytest.raises(SettingsError, match=why):
        replace(SETTINGS, **odd)


def test_reports_may_go_nowhere_or_everywhere():
    check_report("none")
    check_report("all")


def test_defaults_are_two_stages_examples_as_long_as_the_context_and_some_held_out(checkpoint: Path):
    start = replace(read_start(str(checkpoint)), context_length=4096)
    found = defaults(start)
    assert (found.max_tokens, found.stages, found.held_out) == (4096, ("fs", "ro"), 64)


OTHER = {
    "learning_rate": 2e-2, "batch": 8, "num_batches": 4, "max_tokens": 65, "stages": ("ro",), "epochs": 2.0,
    "updates": 3, "warmup_updates": 1, "mix": 0.5, "weighting": "inverse_t", "stratify": True, "lora": 2,
    "gradient_checkpointing": True, "held_out": 1, "monitor_updates": 9, "seed": 1,
}  # fmt: skip


"""Every setting with which a run comes to another end, or to another log."""


def test_a_run_is_another_by_every_setting_that_has_an_effect(checkpoint: Path):
    plan: Any = SimpleNamespace(
        start=read_start(str(checkpoint)), data=("a",), fingerprint="", settings=SETTINGS
    )
    own = record_of(plan)
    for name, value in OTHER.items():
        plan.settings = replace(SETTINGS, **{name: value})
        assert record_of(plan) != own, name
    for name, value in {"use_cpu": False, "save_updates": 9, "report_to": "all"}.items():
        plan.settings = replace(SETTINGS, **{name: value})
        assert record_of(plan) == own, name


def sized(settings: Settings, counts: Counts | None, folder: Path) -> Any:
    config = {"num_hidden_layers": 3, "hidden_size": 16, "intermediate_size": 40}
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **config}))
    vocabulary = SimpleNamespace(num_ids=1000)
    start = SimpleNamespace(folder=folder, num_parameters=10**6, vocabulary=vocabulary, source="it")
    return SimpleNamespace(
        start=start, settings=settings, counts=counts, held_out=[], num_updates=lambda stage: 5
    )


def test_memory_is_that_of_weights_gradients_moments_activations_and_logits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    longest = 64 * 2  # two examples a batch
    fixed, logits = 4 * 10**6, 4 * longest * 1000
    whole = 12 * 10**6  # gradients, and two moments
    activations = 2 * longest * 3 * 16 * (8 + 3 * 40 / 16)

    def found(**odd: Any) -> float:
        return memory_gib(sized(replace(SETTINGS, **odd), None, tmp_path)) * 2**30

    assert found() == pytest.approx(fixed + whole + activations + logits)
    assert found(gradient_checkpointing=True) == pytest.approx(fixed + whole + 2 * longest * 3 * 16 + logits)
    factors = 4 * (16 + 16) + 3 * (16 + 40)  # of four square matrices, and three of the feed-forward part
    assert found(lora=2) == pytest.approx(fixed + 12 * 3 * 2 * factors + activations + logits)
    assert found(num_batches=4) == pytest.approx(fixed + whole + activations / 2 + logits / 2)
    monkeypatch.setattr(estimates, "MAX_LOGITS", 10)
    assert found() == pytest.approx(fixed + whole + activations + 40)


def test_time_counts_what_is_trained_and_made_again_over_all_stages(tmp_path: Path):
    counts = Counts(examples=10, tokens=300, truncated=0, dropped=0, repeated=0)
    total = 2 * 5 * 4 * 30  # stages, updates, examples, tokens of one

    def hours(counts: Counts | None, **odd: Any) -> str:
        (line,) = (
            line
            for line in dry_run(sized(replace(SETTINGS, **odd), counts, tmp_path), tflops=1e-6).splitlines()
            if line.startswith("time")
        )
        return line.split()[1]

    for odd, operations in (
        ({}, 6), ({"lora": 2}, 4), ({"gradient_checkpointing": True}, 8), ({"stages": ("ro",)}, 3)
    ):  # fmt: skip
        assert hours(counts, **odd) == f"{operations * total / 3600:.2g}"
    assert hours(None) == f"{6 * 2 * 5 * 4 * 64 / 3600:.2g}", "a stream's examples are as long as they may be"


def test_a_card_says_what_was_measured_before_and_after():
    log = [
        {"eval_prompt_loss": 6.0, "eval_response_loss": 3.0, "eval_prompt_perplexity": 400.0, "step": 0},
        {"eval_prompt_loss": 2.0, "eval_response_loss": 1.0, "eval_prompt_perplexity": 9.0, "step": 100},
        {"loss": 2.2, "step": 125},
        {"eval_prompt_loss": 2.5, "eval_response_loss": 1.5, "eval_prompt_perplexity": 12.0, "step": 200},
    ]
    card = model_card("it", ("a.jsonl", "b.jsonl"), replace(SETTINGS, stages=("fs", "ro")), None, log)
    assert "| prompt loss | 6.000 | 2.500 |\n| response loss | 3.000 | 1.500 |\n" in card
    assert "| prompt perplexity | 400.000 | 12.000 |" in card
    assert "masks on the full sequence, then on responses only\n" in card
    assert "on `a.jsonl`, `b.jsonl`." in card
