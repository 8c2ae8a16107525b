"""A run from data to checkpoint: what comes out, and what becomes of it when it is interrupted."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import PartialState
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from dspy_diffusion_infill.engine.infiller import DiffusionInfiller
from dspy_diffusion_infill.engine.model import load
from dspy_diffusion_infill.errors import InfillError, ModelError, SettingsError
from dspy_diffusion_infill.prompts.canvas import Canvas, Masked, Message
from dspy_diffusion_infill.training import finetune as finetuning
from dspy_diffusion_infill.training import saving
from dspy_diffusion_infill.training import train as loop
from dspy_diffusion_infill.training.card import model_card
from dspy_diffusion_infill.training.dry_run import dry_run
from dspy_diffusion_infill.training.finetune import Plan, finetune, prepare
from dspy_diffusion_infill.training.monitor import HeldOut
from dspy_diffusion_infill.training.saving import adapted, merged, own_dtype, save
from dspy_diffusion_infill.training.settings import Settings, defaults
from dspy_diffusion_infill.training.start import read_start, read_weights
from dspy_diffusion_infill.training.train import Batches, train
from dspy_diffusion_infill.training.updates import Updates
from dspy_diffusion_infill.training.work import last_checkpoint, writing
from tests.training.conftest import write_rows

pytestmark = pytest.mark.usefixtures("own_cache")

SETTINGS = Settings(
    learning_rate=1e-2, batch=4, num_batches=2, max_tokens=64, updates=2, held_out=2, save_updates=1,
    use_cpu=True,
)  # fmt: skip


@pytest.fixture
def plan(checkpoint: Path, tmp_path: Path) -> Plan:
    rows = [{"prompt": f"made-up review number {n}", "response": str(n % 5)} for n in range(12)]
    return prepare(read_start(str(checkpoint)), [write_rows(tmp_path / "data.jsonl", rows)], SETTINGS)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return LlamaForCausalLM.from_pretrained(folder).state_dict()


def test_the_output_infills_and_loads_in_plain_transformers(plan: Plan, tmp_path: Path):
    output = tmp_path / "runs" / "out"
    finetune(plan, output)
    canvas = Canvas((Message("system", ("Rate", Masked(3), ".")),))
    infiller = DiffusionInfiller(load(str(output), device="cpu"))
    assert infiller.infill([canvas], num_candidates=1, seed=0)[0][0].texts[0]
    plain = AutoModelForCausalLM.from_pretrained(output)
    assert isinstance(plain, LlamaForCausalLM)
    assert plain.config.is_causal is False
    assert not torch.equal(
        plain.state_dict()["model.norm.weight"], weights(plan.start.folder)["model.norm.weight"]
    )
    card = (output / "README.md").read_text()
    assert "the full sequence, then on responses only" in card
    assert "12 examples" in card
    before = HeldOut(plan.held_out, plan.start.vocabulary, shift=0, seed=0)(read_weights(plan.start))
    after = HeldOut(plan.held_out, plan.start.vocabulary, shift=0, seed=0)(read_weights(plan.start, output))
    assert f"| prompt loss | {before['prompt_loss']:.3f} | {after['prompt_loss']:.3f} |" in card
    assert not (tmp_path / "runs" / "out-work").exists()
    with pytest.raises(SettingsError, match="output must not exist yet"):
        finetune(plan, output)


@pytest.mark.parametrize(("shift", "log"), [(0, []), (1, [{"eval_prompt_loss": 2.0}])])
def test_a_card_says_where_logits_are_read_and_shows_what_was_measured(shift: int, log: list[dict]):
    card = model_card("a model", ["data"], SETTINGS, None, log, shift=shift)
    assert ("logits are read at the place before it" in card) is bool(shift)
    assert ("held-out examples" in card) is bool(log)
    assert "| warmup_updates | 500, at most a quarter of a stage |" in card


def test_a_run_cut_short_in_its_second_stage_ends_as_an_uninterrupted_one(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    plan = replace(plan, settings=replace(plan.settings, updates=3))
    finetune(plan, tmp_path / "whole")
    draw, seen = Updates._draw, []

    def interrupted(self: Updates, update: int):
        seen.append((self.objective, update))
        if seen[-1] == ("ro", 2) and seen.count(("ro", 2)) == 1:
            raise KeyboardInterrupt
        return draw(self, update)

    monkeypatch.setattr(Updates, "_draw", interrupted)
    with pytest.raises(KeyboardInterrupt):
        finetune(plan, tmp_path / "broken")
    assert not (tmp_path / "broken").exists()
    with pytest.raises(SettingsError, match=r"must hold this run's own work"):
        finetune(replace(plan, settings=replace(plan.settings, seed=1)), tmp_path / "broken")
    del seen[:-1]
    finetune(plan, tmp_path / "broken")
    assert ("fs", 0) not in seen
    assert ("ro", 0) not in seen, "the checkpoint after the first update is where it goes on"
    whole, broken = weights(tmp_path / "whole"), weights(tmp_path / "broken")
    for name, value in whole.items():
        torch.testing.assert_close(broken[name], value, atol=1e-6, rtol=0)


def test_a_full_disk_leaves_no_half_of_a_checkpoint_and_the_run_goes_on_later(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    plan = replace(plan, settings=replace(plan.settings, stages=("ro",)))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(saving.shutil, "copyfile", full)
        with pytest.raises(InfillError, match=r"must take .*0-ro-done.*No space left on device\. Make room"):
            finetune(plan, tmp_path / "out")
    work = tmp_path / "out-work"
    assert sorted(path.name for path in work.iterdir()) == ["0-ro", "lock", "run.json"]
    assert Path(last_checkpoint(work / "0-ro") or "").name == "checkpoint-2"
    finetune(plan, tmp_path / "out")
    assert (tmp_path / "out" / "tokenizer.json").is_file()


def test_a_full_disk_is_said_in_one_sentence_where_a_checkpoint_of_a_stage_is_written(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object, **__: object) -> None:
        raise SafetensorError("No space left on device (os error 28)")

    monkeypatch.setattr(LlamaForCausalLM, "save_pretrained", full)
    with pytest.raises(
        InfillError, match=r"must take .*0-fs'.*No space left.*goes on from its last checkpoint"
    ):
        finetune(plan, tmp_path / "out")
    with pytest.raises(InfillError, match="No space left"):
        save(read_weights(plan.start), plan.start, tmp_path / "saved", torch.float32, "card")
    assert not list(tmp_path.glob("saved*"))


def test_a_disk_too_full_for_the_optimizer_is_said_in_one_sentence_too(tmp_path: Path):
    with (
        pytest.raises(InfillError, match=r"must take .*unexpected pos"),
        writing(tmp_path, *saving.TORCH_SAYS),
    ):
        raise RuntimeError("enforce fail: unexpected pos 236352 vs 236244")


def test_what_lies_where_a_run_would_work_is_left_alone(plan: Plan, tmp_path: Path):
    for name in ("out-work", "saved-saving"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.txt").write_text("mine")
    with pytest.raises(
        SettingsError, match=r"out-work', where the work of this output goes, .* something else"
    ):
        finetune(plan, tmp_path / "out")
    with pytest.raises(SettingsError, match=r"saved-saving', where a checkpoint is made, .*something else"):
        save(read_weights(plan.start), plan.start, tmp_path / "saved", torch.float32, "card")
    assert [path.read_text() for path in sorted(tmp_path.glob("*/thesis.txt"))] == ["mine", "mine"]


def test_the_output_has_the_tokenizers_chat_template_and_the_logs_of_all_stages(
    plan: Plan, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    start = shutil.copytree(checkpoint, tmp_path / "start")
    (start / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    draw = Updates._draw

    def logged(self: Updates, update: int):
        number = plan.settings.stages.index(self.objective)
        logs = tmp_path / "out-work" / f"{number}-{self.objective}" / "runs"
        logs.mkdir(exist_ok=True)
        (logs / "events").write_text(self.objective)
        return draw(self, update)

    monkeypatch.setattr(Updates, "_draw", logged)
    finetune(replace(plan, start=read_start(str(start))), tmp_path / "out")
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template.startswith("{% for m in")
    for stage in ("0-fs", "1-ro"):
        assert (tmp_path / "out" / "runs" / stage / "events").read_text() == stage[2:]


def test_a_failed_start_does_not_stand_in_the_way_of_the_next(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def interrupted(*_: object):
        raise KeyboardInterrupt

    one = replace(plan, settings=replace(plan.settings, stages=("ro",)))
    with monkeypatch.context() as patched:
        patched.setattr(Updates, "_draw", interrupted)
        with pytest.raises(KeyboardInterrupt):
            finetune(plan, tmp_path / "out")
    finetune(one, tmp_path / "out")
    assert not (tmp_path / "out-work").exists()


def test_a_run_goes_on_with_other_means_and_not_with_other_data_or_weights(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    draw = Updates._draw

    def interrupted(self: Updates, update: int):
        if update == 1 and self.objective == "ro":
            raise KeyboardInterrupt
        return draw(self, update)

    with monkeypatch.context() as patched:
        patched.setattr(Updates, "_draw", interrupted)
        with pytest.raises(KeyboardInterrupt):
            finetune(plan, tmp_path / "out")
    other = [{"prompt": f"OTHER {n}", "response": "no"} for n in range(12)]
    changed = prepare(plan.start, [write_rows(tmp_path / "data.jsonl", other)], plan.settings)
    with pytest.raises(SettingsError, match="begun with another contents of data, seed"):
        finetune(replace(changed, settings=replace(plan.settings, seed=3)), tmp_path / "out")
    network = read_weights(plan.start)
    torch.nn.init.ones_(network.get_input_embeddings().weight)
    save(network, plan.start, tmp_path / "start", torch.float32, "card")
    replaced = replace(plan.start, folder=tmp_path / "start")
    with pytest.raises(SettingsError, match="begun with another contents of model"):
        finetune(replace(plan, start=replaced), tmp_path / "out")
    finetune(replace(plan, settings=replace(plan.settings, save_updates=7)), tmp_path / "out")


def test_a_kill_while_a_run_is_put_away_loses_nothing(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    rename = Path.rename

    def killed(self: Path, target: Path):
        if target == tmp_path / "out":
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            finetune(plan, tmp_path / "out")
    monkeypatch.setattr(Updates, "_draw", None)  # nothing is trained again
    finetune(plan, tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").is_file()
    assert not (tmp_path / "out-work").exists()


def test_while_a_run_is_at_work_its_other_processes_join_it_and_other_runs_are_refused(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    output = tmp_path / "out"

    def others(*_: object):
        with pytest.raises(SettingsError, match=r"out-work' must be used by one run at a time"):
            finetune(plan, output)
        monkeypatch.setattr(finetuning, "_run", lambda *_: None)
        monkeypatch.setattr(PartialState, "is_main_process", False)
        finetune(plan, output)
        raise KeyboardInterrupt

    monkeypatch.setattr(finetuning, "_run", others)
    with pytest.raises(KeyboardInterrupt):
        finetune(plan, output)
    assert not output.exists()


def test_a_half_written_checkpoint_is_passed_over(tmp_path: Path):
    assert last_checkpoint(tmp_path / "none") is None
    for name, state in (("checkpoint-9", "{}"), ("checkpoint-10", "{}"), ("checkpoint-11", '{"step": 1')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "trainer_state.json").write_text(state)
    (tmp_path / "checkpoint-12").mkdir()
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")


@pytest.mark.parametrize("dora", [False, True])
def test_merged_adapters_compute_what_they_computed_apart(plan: Plan, dora: bool):
    settings = replace(plan.settings, lora=2, dora=dora)
    model = adapted(read_weights(plan.start), settings).eval()
    for name, value in model.named_parameters():
        assert value.requires_grad == ("lora_" in name)
        assert "lm_head.lora" not in name
        if value.requires_grad:
            torch.nn.init.normal_(value, std=0.3)
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        apart = model(input_ids=ids).logits
        together = merged(plan.start, None, settings, model.state_dict()).eval()(input_ids=ids).logits
        plain = read_weights(plan.start).eval()(input_ids=ids).logits
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=1e-5)
    assert (apart - plain).abs().max() > 1e-3


def test_adapters_with_checkpointed_activations_train_and_are_merged_into_the_output(
    plan: Plan, tmp_path: Path
):
    settings = replace(plan.settings, lora=2, gradient_checkpointing=True, stages=("ro",))
    finetune(replace(plan, settings=settings), tmp_path / "out")
    before, after = weights(plan.start.folder), weights(tmp_path / "out")
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any("q_proj" in name for name in changed)
    assert not {name for name in changed if "embed" in name or "lm_head" in name or "norm" in name}


@pytest.mark.parametrize("written", [None, "auto", "torch.bfloat16", "float32"])
def test_the_precision_is_that_of_the_starts_weights_whatever_its_config_says(
    plan: Plan, tmp_path: Path, written: str | None
):
    for name, dtype in (("half", torch.bfloat16), ("full", torch.float32)):
        save(read_weights(plan.start), plan.start, tmp_path / name, dtype, "card")
        config = json.loads((tmp_path / name / "config.json").read_text())
        (tmp_path / name / "config.json").write_text(json.dumps({**config, "dtype": written}))
        assert own_dtype(replace(plan.start, folder=tmp_path / name)) == dtype


def test_a_few_weights_of_another_precision_do_not_decide_it(plan: Plan, tmp_path: Path):
    weights = {"norm": torch.ones(4), "bias": torch.ones(4), "layer": torch.ones(9).half()}
    save_file(weights, tmp_path / "model.safetensors")
    assert own_dtype(replace(plan.start, folder=tmp_path)) == torch.float16


def test_settings_are_the_papers_by_family_and_refuse_what_cannot_be(plan: Plan):
    found = defaults(plan.start)
    assert (found.learning_rate, found.batch, found.num_batches, found.warmup_updates) == (1e-5, 32, 32, 500)
    assert [found.num_updates(stage, 95_000) for stage in found.stages] == [23_750, 11_875]
    dream = defaults(replace(plan.start, family="dream"))
    assert (dream.learning_rate, dream.batch, dream.num_batches) == (2e-6, 128, 64)
    for odd, why in (
        ({"stages": ("answer",)}, "stages must be some of fs, ro; got 'answer'"),
        ({"num_batches": 33}, "num_batches must be between 1 and batch, 32; got 33"),
        ({"mix": 1.0}, "mix must be at least 0 and below 1"),
        ({"dora": True}, "dora must go with lora"),
        ({"updates": 0}, "updates must be above 0 and finite; got 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be above 0 and finite; got nan"),
        ({"epochs": float("inf")}, "epochs must be above 0 and finite; got inf"),
        ({"seed": -1}, r"seed must be at least 0 and below 2\^32; got -1"),
        ({"seed": 2**32}, r"seed must be at least 0 and below 2\^32; got 4294967296"),
        ({"report_to": "foo"}, r"report_to must be none, all, or one that is installed .*got 'foo'"),
        ({"weighting": "t"}, "weighting must be 'mean' or 'inverse_t'; got 't'"),
    ):
        with pytest.raises(SettingsError, match=why):
            replace(found, **odd)


def test_a_plan_refuses_what_an_hour_of_training_would(plan: Plan, checkpoint: Path, tmp_path: Path):
    start = plan.start
    with pytest.raises(SettingsError, match=r"max_tokens must be at most 512, the context of .*; got 513"):
        prepare(start, plan.data, replace(SETTINGS, max_tokens=513))
    with pytest.raises(SettingsError, match="held_out must be below 12, the number of examples; got 12"):
        prepare(start, plan.data, replace(SETTINGS, held_out=12))
    with pytest.raises(SettingsError, match="held_out must be below 12, the number of examples; got 12"):
        prepare(start, plan.data, replace(SETTINGS, held_out=12), streaming=True)
    with pytest.raises(SettingsError, match="updates must be given for a stream"):
        prepare(start, plan.data, replace(SETTINGS, updates=None), streaming=True)
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ModelError, match=r"must be a LLaDA or a Dream.*'bert'"):
        read_start(str(tmp_path / "bert"))


def test_held_out_examples_are_not_trained_on(plan: Plan):
    trained = {plan.examples[number] for number in range(10)}
    assert len(trained) == 10
    assert len(plan.held_out) == 2
    assert not trained & set(plan.held_out)


def test_a_stage_that_comes_again_masks_other_tokens(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    masked: list[list[int]] = []

    def look(model: object, batches: Batches, output: Path, **_: object):
        masked.append(
            [token for number in range(2) for token in batches[number]["labels"].flatten().tolist()]
        )
        (output.parent / f"{output.name}-done").mkdir()

    monkeypatch.setattr(finetuning, "train", look)
    monkeypatch.setattr(finetuning, "_save", lambda *_: None)
    monkeypatch.setattr(finetuning, "read_weights", lambda start, _: read_weights(start))
    finetune(replace(plan, settings=replace(plan.settings, stages=("fs", "fs"))), tmp_path / "out")
    assert masked[0] != masked[1]


def test_a_stream_trains_as_files_do(plan: Plan, tmp_path: Path):
    settings = replace(plan.settings, stages=("ro",))
    streamed = prepare(plan.start, plan.data, settings, streaming=True)
    assert not {streamed.examples[number] for number in range(10)} & set(streamed.held_out)
    finetune(streamed, tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_a_dry_run_counts_tokens_updates_memory_and_time_without_reading_weights(plan: Plan):
    assert plan.counts is not None
    settings = replace(plan.settings, updates=None, epochs=5.0)
    found = dry_run(replace(plan, settings=settings), tflops=1.0)
    tokens = round(13 * 4 * plan.counts.tokens / 12)  # five epochs of the 10 trained on are 13 updates of 4
    assert f"stage fs  13 updates of 4 examples, {tokens:,} tokens" in found
    assert "12 examples" in found
    assert "left out; 2 held out" in found
    parameters = sum(
        value.numel() for value in LlamaForCausalLM.from_pretrained(plan.start.folder).parameters()
    )
    assert plan.start.num_parameters == parameters
    hours = 6 * parameters * 2 * tokens / 1e12 / 3600
    assert f"time      {hours:.2g} hours at 1 TFLOP/s" in found


IDS = torch.tensor([[5, 6, 7, 8]])


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Logits of a model before and after each stage."""
    found: list[tuple[torch.Tensor, torch.Tensor]] = []

    def logits(model: Any) -> torch.Tensor:
        with torch.no_grad():
            return model(input_ids=IDS).logits

    def watched(model: Any, *given: Any, **how: Any):
        before = logits(model)
        trainer = train(model, *given, **how)
        found.append((before, logits(model)))
        return trainer

    monkeypatch.setattr(
        loop, "fast_in_bf16", lambda use_cpu: False
    )  # trained ones would compute in it ever after
    monkeypatch.setattr(finetuning, "train", watched)
    monkeypatch.setattr(finetuning, "own_dtype", lambda _: torch.float32)
    return found


def test_a_stage_goes_on_from_what_the_one_before_it_learned(plan: Plan, tmp_path: Path, ends: list):
    """To the bit: between stages, weights are kept in float32."""
    plan = replace(plan, settings=replace(plan.settings, learning_rate=0.1))
    finetuning.own_dtype = lambda _: torch.bfloat16  # as its weights have it; `ends` puts it back
    finetune(plan, tmp_path / "out")
    (_, first), (second, _) = ends
    torch.testing.assert_close(second, first, atol=1e-5, rtol=1e-5)


def test_adapters_of_a_second_stage_are_merged_into_what_the_first_left(
    plan: Plan, tmp_path: Path, ends: list
):
    plan = replace(plan, settings=replace(plan.settings, lora=2, learning_rate=0.1))
    finetune(plan, tmp_path / "out")
    (start, first), (second, last) = ends
    assert (first - start).abs().max() > 1e-2
    torch.testing.assert_close(second, first, atol=1e-4, rtol=1e-4)
    out = LlamaForCausalLM.from_pretrained(tmp_path / "out").eval()
    torch.testing.assert_close(out(input_ids=IDS).logits.detach(), last, atol=1e-4, rtol=1e-4)


def test_the_output_has_the_precision_of_the_start(plan: Plan, tmp_path: Path):
    finetune(replace(plan, settings=replace(plan.settings, stages=("ro",))), tmp_path / "out")
    assert {value.dtype for value in load_file(tmp_path / "out" / "model.safetensors").values()} == {
        torch.bfloat16
    }


def test_the_loop_is_asked_for_what_the_settings_say(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked: list[tuple[Any, dict[str, Any]]] = []

    def look(model: object, batches: Any, output: Path, **how: Any):
        asked.append((batches.make, how))
        (output.parent / f"{output.name}-done").mkdir()

    monkeypatch.setattr(finetuning, "train", look)
    monkeypatch.setattr(finetuning, "_save", lambda *_: None)
    monkeypatch.setattr(finetuning, "read_weights", lambda *_: read_weights(plan.start))
    wanted = {
        "learning_rate": 3e-4, "seed": 5, "save_updates": 3, "gradient_checkpointing": True,
        "monitor_updates": 7, "report_to": "all",
    }  # fmt: skip
    settings = replace(
        plan.settings, stages=("ro",), mix=0.25, weighting="inverse_t", stratify=True, updates=40,
        warmup_updates=3, **wanted,
    )  # fmt: skip
    dream = replace(plan.start, family="dream")
    finetune(replace(plan, start=dream, settings=settings), tmp_path / "out")
    ((made, how),) = asked
    assert (made.mix, made.weighting, made.stratify, made.seed) == (0.25, "inverse_t", True, 5)
    assert {name: how[name] for name in wanted} == wanted
    assert (how["shift"], how["monitor"].shift, how["warmup_updates"]) == (1, 1, 3)


def test_examples_may_be_as_long_as_the_context(plan: Plan):
    assert prepare(plan.start, plan.data, replace(SETTINGS, max_tokens=512)).settings.max_tokens == 512


def test_examples_without_a_response_are_left_out_of_a_plan(plan: Plan, tmp_path: Path):
    silent = {"messages": [{"role": "user", "content": "Hi."}]}
    rows = [
        {"messages": [{"role": "user", "content": f"{n}"}, {"role": "assistant", "content": "1"}]}
        for n in range(9)
    ]
    found = prepare(plan.start, [write_rows(tmp_path / "b.jsonl", [*rows, silent])], SETTINGS)
    assert found.counts is not None
    assert (found.counts.examples, found.counts.dropped) == (9, 1)
    assert all(any(found.examples[number].response) for number in range(7))


def test_another_seed_holds_other_examples_out(plan: Plan):
    plans = [prepare(plan.start, plan.data, replace(SETTINGS, seed=seed)) for seed in range(4)]
    assert len({tuple(found.held_out) for found in plans}) > 1


def test_weights_are_checked_and_are_part_of_what_a_run_is(plan: Plan, tmp_path: Path):
    rows = [{"prompt": f"other {n}", "response": "1"} for n in range(12)]
    data = [*plan.data, write_rows(tmp_path / "b.jsonl", rows)]
    records = [
        finetuning.record_of(prepare(plan.start, data, SETTINGS, weights=weights))["data"]
        for weights in ([3, 1], [1, 3])
    ]
    assert records[0] != records[1]
    with pytest.raises(SettingsError, match="weights must be 2 positive numbers"):
        prepare(plan.start, data, SETTINGS, weights=[1])


def test_a_streams_fingerprint_is_of_what_is_held_out(plan: Plan, tmp_path: Path):
    rows = [{"prompt": f"other {n}", "response": "1"} for n in range(12)]
    other = write_rows(tmp_path / "b.jsonl", rows)
    found = {
        prepare(plan.start, [name], SETTINGS, streaming=True).fingerprint for name in (*plan.data, other)
    }
    assert len(found) == 2
    assert all(map(bool, found))


def test_several_gpus_are_refused_before_data_are_read(plan: Plan, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(SettingsError, match="this one sees 2"):
        prepare(plan.start, ["/nowhere.jsonl"], replace(SETTINGS, use_cpu=False))


def test_adapters_begin_alike_whatever_was_drawn_before(plan: Plan):
    """Processes, and runs that go on, must begin with the same; twice the rank scales them."""
    found = []
    for drawn in (1, 2):
        torch.manual_seed(drawn)
        model: Any = adapted(read_weights(plan.start), replace(SETTINGS, lora=4))
        found.append({name: value for name, value in model.named_parameters() if "lora_A" in name})
    assert model.peft_config["default"].lora_alpha == 8
    for name, value in found[0].items():
        assert torch.equal(value, found[1][name])


def test_all_files_of_a_published_tokenizer_are_in_the_output(plan: Plan, tmp_path: Path):
    """Dream's is vocab.json, merges.txt and added_tokens.json, and no tokenizer.json."""
    start = tmp_path / "start"
    start.mkdir()
    names = (
        "vocab.json",
        "merges.txt",
        "added_tokens.json",
        "special_tokens_map.json",
        "tokenizer_config.json",
    )
    for name in names:
        (start / name).write_text("{}")
    save(read_weights(plan.start), replace(plan.start, folder=start), tmp_path / "out", torch.float32, "card")
    assert set(names) <= {path.name for path in (tmp_path / "out").iterdir()}


def test_a_stream_trains_two_short_stages(plan: Plan, tmp_path: Path):
    """The second stage begins with the first examples again, the oldest that a stream still has."""
    streamed = prepare(plan.start, plan.data, plan.settings, streaming=True)
    finetune(streamed, tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").is_file()
