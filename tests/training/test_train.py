"""The loop and the recipe, at a size of seconds."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM, TrainerCallback
from transformers.integrations import integration_utils

from dspy_diffusion_infill.engine.attention import attends_by_example
from dspy_diffusion_infill.engine.infiller import DiffusionInfiller
from dspy_diffusion_infill.engine.model import load
from dspy_diffusion_infill.engine.vocabulary import Vocabulary
from dspy_diffusion_infill.errors import InfillError, SettingsError
from dspy_diffusion_infill.prompts.canvas import Canvas, Masked, Message
from dspy_diffusion_infill.training import train as training
from dspy_diffusion_infill.training import trainer
from dspy_diffusion_infill.training.embedded import _config, build
from dspy_diffusion_infill.training.train import Batches, check_gpus, fast_in_bf16, only, train
from dspy_diffusion_infill.training.world import PARTS, World
from tests.training.conftest import TINY


def run(
    model: LlamaForCausalLM,
    world: World,
    output: Path,
    num_updates: int,
    *,
    stop_after: int | None = None,
    save_updates: int = 2,
):
    """Train; with `stop_after`, as if the process had ended once that many updates were made."""

    def make(update: int):
        if update == stop_after:
            raise KeyboardInterrupt
        return world.batch(TINY.stages[1], TINY.batch_tokens, TINY.seed, update)

    settings = {"learning_rate": 1e-2, "warmup_updates": 1, "save_updates": save_updates, "use_cpu": True}
    train(model, Batches(make, num_updates), output, **settings)


def test_without_an_accelerator_it_trains_on_the_cpu_unasked(
    model: LlamaForCausalLM, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setattr(training, "fast_in_bf16", lambda on_cpu: on_cpu)
    batches = Batches(lambda number: world.batch(TINY.stages[1], TINY.batch_tokens, 0, number), 1)
    trainer = train(model, batches, tmp_path / "run", learning_rate=1e-3, warmup_updates=1)
    assert (trainer.args.use_cpu, trainer.args.bf16) == (True, True)


def test_training_lowers_the_loss_of_what_it_sees(model: LlamaForCausalLM, world: World, tmp_path: Path):
    from dspy_diffusion_infill.training.loss import masked_losses

    batch = world.batch(TINY.stages[1], TINY.batch_tokens, TINY.seed, 0)

    def loss() -> float:
        with torch.no_grad():
            return (
                masked_losses(model, batch["input_ids"], batch["labels"], batch["attention_mask"])
                .mean()
                .item()
            )

    before = loss()
    run(model, world, tmp_path / "run", 8)
    assert loss() < before - 0.2
    assert attends_by_example(model)


def test_an_interrupted_run_ends_where_an_uninterrupted_one_does(
    model: LlamaForCausalLM, world: World, tmp_path: Path
):
    torch.manual_seed(0)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    run(model, world, tmp_path / "whole", 6)
    whole = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(start)
    with pytest.raises(KeyboardInterrupt):
        run(model, world, tmp_path / "broken", 6, stop_after=5)
    model.load_state_dict(start)
    run(model, world, tmp_path / "broken", 6)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, whole[name], atol=1e-6, rtol=0)


def test_a_run_that_goes_on_saves_as_often_as_it_is_now_asked_to(
    model: LlamaForCausalLM, world: World, tmp_path: Path
):
    with pytest.raises(KeyboardInterrupt):
        run(model, world, tmp_path, 6, stop_after=3)
    run(model, world, tmp_path, 6, save_updates=1)
    assert {path.name for path in tmp_path.glob("checkpoint-*")} == {"checkpoint-5", "checkpoint-6"}


def with_infinite_weights(model: LlamaForCausalLM) -> None:
    model.get_input_embeddings().weight.data.fill_(torch.inf)


def with_infinite_gradients(model: LlamaForCausalLM) -> None:
    model.get_input_embeddings().weight.register_hook(lambda gradient: gradient * torch.inf)


@pytest.mark.parametrize(
    ("breaking", "what"), [(with_infinite_weights, "loss"), (with_infinite_gradients, "gradient norm")]
)
def test_a_run_that_diverges_says_so_and_keeps_its_last_good_checkpoint(
    model: LlamaForCausalLM, world: World, tmp_path: Path, breaking: Callable, what: str
):
    draw = partial(world.batch, TINY.stages[1], TINY.batch_tokens, TINY.seed)

    def make(update: int):
        if update == 3:  # drawn before the third update
            breaking(model)
        return draw(update)

    with pytest.raises(
        InfillError, match=rf"The {what} of update 3 must be finite; got (nan|inf): .* lower learning"
    ):
        train(
            model,
            Batches(make, 6),
            tmp_path,
            learning_rate=1e-2,
            warmup_updates=1,
            save_updates=2,
            use_cpu=True,
        )
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-2"]


def test_what_is_held_out_is_measured_once_where_a_run_ends(
    model: LlamaForCausalLM, world: World, tmp_path: Path
):
    make = partial(world.batch, TINY.stages[1], TINY.batch_tokens, TINY.seed)
    measured: list[int] = []
    found = train(
        model, Batches(make, 4), tmp_path, learning_rate=1e-2, warmup_updates=1, use_cpu=True,
        monitor=lambda _: {"loss": float(measured.append(1) is None)}, monitor_updates=2,
    )  # fmt: skip
    steps = [entry["step"] for entry in found.state.log_history if "eval_loss" in entry]
    assert steps == [0, 2, 4]
    assert len(measured) == 3


def test_several_gpus_are_not_used_by_one_process(
    model: LlamaForCausalLM, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Trainer would ask for two batches at a time, and each count as seen."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    make = partial(world.batch, TINY.stages[1], TINY.batch_tokens, TINY.seed)
    with pytest.raises(SettingsError, match=r"this one sees 2\. Start it with accelerate launch"):
        train(model, Batches(make, 4), tmp_path, learning_rate=1e-2, warmup_updates=1)
    check_gpus(use_cpu=True)
    monkeypatch.setenv("WORLD_SIZE", "2")
    check_gpus(use_cpu=False)
    with pytest.raises(ValueError, match="too many values"):
        only([make(0), make(1)])


def test_a_model_that_diverged_in_its_last_update_is_not_saved(
    model: LlamaForCausalLM, world: World, tmp_path: Path
):
    make = partial(world.batch, TINY.stages[1], TINY.batch_tokens, TINY.seed)
    losses = iter([6.5, float("inf")])
    with pytest.raises(InfillError, match="The held-out loss of update 2 must be finite; got inf"):
        train(
            model, Batches(make, 2), tmp_path, learning_rate=1e-2, warmup_updates=1, use_cpu=True,
            monitor=lambda _: {"loss": next(losses)},
        )  # fmt: skip
    assert not list(tmp_path.glob("checkpoint-*"))


def test_the_recipe_makes_a_model_that_loads_and_infills(real: Path, tokenizer: Tokenizer, tmp_path: Path):
    build(real, tmp_path / "model", TINY, use_cpu=True)
    made = Tokenizer.from_file(str(tmp_path / "model" / "tokenizer.json"))
    assert made.get_vocab() == tokenizer.get_vocab(), "the other tests are given this one"
    infiller = DiffusionInfiller(load(str(tmp_path / "model"), device="cpu"))
    canvas = Canvas((Message("system", ("Rate", Masked(3), ".")),))
    assert infiller.infill([canvas], num_candidates=2, seed=0)[0][0].texts[0]
    assert LlamaForCausalLM.from_pretrained(tmp_path / "model").config.is_causal is False
    assert len(list((tmp_path / "model-work").iterdir())) == len(TINY.stages)


@pytest.mark.usefixtures("ready_tokenizer")
def test_a_finished_stage_is_not_trained_again(real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    stages = (*TINY.stages[:2], replace(TINY.stages[2], num_updates=1))
    seen: list[str] = []
    batch = World.batch

    def interrupted(self: World, stage, *arguments):
        seen.append(stage.name)
        if stage.name == "ro" and seen.count("ro") == 1:
            raise KeyboardInterrupt
        return batch(self, stage, *arguments)

    monkeypatch.setattr(World, "batch", interrupted)
    recipe = replace(TINY, stages=stages)
    with pytest.raises(KeyboardInterrupt):
        build(real, tmp_path / "model", recipe, use_cpu=True)
    assert seen == ["start"] * 2 * PARTS + ["fs"] * 4 * PARTS + ["ro"]
    build(real, tmp_path / "model", recipe, use_cpu=True)
    assert seen[6 * PARTS + 1 :] == ["ro"] * PARTS


@pytest.mark.usefixtures("ready_tokenizer")
def test_a_stage_that_changed_is_trained_again_and_those_before_it_are_not(
    real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    build(real, tmp_path / "model", TINY, use_cpu=True)
    with pytest.raises(SettingsError, match="output must not exist yet"):
        build(real, tmp_path / "model", TINY, use_cpu=True)
    (tmp_path / "model").rename(tmp_path / "before")
    seen: list[str] = []
    batch = World.batch
    monkeypatch.setattr(
        World, "batch", lambda self, stage, *rest: seen.append(stage.name) or batch(self, stage, *rest)
    )
    changed = (TINY.stages[0], replace(TINY.stages[1], learning_rate=2e-3), TINY.stages[2])
    build(real, tmp_path / "model", replace(TINY, stages=changed), use_cpu=True)
    assert set(seen) == {"fs", "ro"}


def test_the_loss_is_of_a_context_that_does_not_see_the_instruction(
    world: World, vocabulary: Vocabulary, tmp_path: Path
):
    from transformers import TrainingArguments

    from dspy_diffusion_infill.training.loss import masked_losses
    from dspy_diffusion_infill.training.trainer import MaskedDiffusionTrainer

    # in one layer, nothing reaches a mask by way of the context
    model = LlamaForCausalLM(_config(replace(TINY, num_layers=2), vocabulary))
    for weights in model.parameters():  # fresh ones attend to everything alike
        torch.nn.init.normal_(weights, generator=torch.Generator().manual_seed(weights.numel()))
    stage = replace(TINY.stages[1], shots=(2,), blind_share=1.0)
    batch = world.batch(stage, TINY.batch_tokens, TINY.seed, 0)
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    loss = MaskedDiffusionTrainer(model, arguments).compute_loss(model, batch)
    inputs = batch["input_ids"], batch["labels"], batch["attention_mask"]
    torch.testing.assert_close(loss, masked_losses(model, *inputs, blind=batch["blind"]).mean())
    assert abs(loss - masked_losses(model, *inputs).mean()) > 1e-3


def test_gradients_are_those_of_the_mean_over_all_masked_tokens_of_an_update(
    model: LlamaForCausalLM, world: World, tmp_path: Path
):
    """Two batches of unlike sizes, accumulated, weigh by their tokens."""
    from transformers import TrainingArguments

    from dspy_diffusion_infill.training.loss import masked_losses
    from dspy_diffusion_infill.training.trainer import MaskedDiffusionTrainer

    make = partial(world.batch, TINY.stages[1], TINY.batch_tokens, TINY.seed)
    batches = [make(0), make(1)]
    counts = [int((batch["labels"] != -100).sum()) for batch in batches]
    assert counts[0] != counts[1]
    losses = [masked_losses(model, b["input_ids"], b["labels"], b["attention_mask"]).sum() for b in batches]
    (sum(losses) / sum(counts)).backward()
    wanted = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    found: dict[str, torch.Tensor] = {}
    arguments = TrainingArguments(
        output_dir=str(tmp_path), per_device_train_batch_size=1, gradient_accumulation_steps=2, max_steps=1,
        max_grad_norm=0.0, use_cpu=True, report_to="none", remove_unused_columns=False, save_strategy="no",
        dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = MaskedDiffusionTrainer(
        model, arguments, train_dataset=Batches(make, 2), data_collator=lambda items: items[0]
    )
    trainer.create_optimizer()
    trainer.optimizer.register_step_pre_hook(
        lambda *_: found.update(
            {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        )
    )
    trainer.train()
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-4)


@pytest.fixture
def batches(world: World) -> Batches:
    return Batches(partial(world.batch, TINY.stages[1], TINY.batch_tokens, TINY.seed), 8)


@pytest.mark.parametrize(("decay", "kind"), [(True, "cosine"), (False, "constant_with_warmup")])
def test_the_optimizer_is_the_papers(
    model: LlamaForCausalLM, batches: Batches, tmp_path: Path, decay: bool, kind: str
):
    """arXiv:2604.03677, Table 5."""
    found = train(
        model, batches, tmp_path, learning_rate=1e-2, warmup_updates=3, decay=decay, seed=7, use_cpu=True
    )
    rates = [found.lr_scheduler.lr_lambdas[0](update) for update in (0, 1, 3, 8)]
    assert rates == pytest.approx([0, 1 / 3, 1, 0.0 if decay else 1.0])
    assert (found.args.lr_scheduler_type, found.args.seed) == (kind, 7)
    assert isinstance(found.optimizer.optimizer, torch.optim.AdamW)
    (group, plain) = found.optimizer.param_groups
    assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.9, 0.999), 1e-8, 0.01)
    assert (plain["weight_decay"], found.args.max_grad_norm) == (0.0, 1.0)  # norms and biases


def test_activations_are_made_again_where_it_is_asked_for(
    model: LlamaForCausalLM, batches: Batches, tmp_path: Path
):
    for asked in (False, True):
        train(
            model, batches, tmp_path / str(asked), learning_rate=1e-3, warmup_updates=0, use_cpu=True,
            gradient_checkpointing=asked,
        )  # fmt: skip
        assert all(getattr(layer, "gradient_checkpointing", False) is asked for layer in model.model.layers)


def test_losses_are_read_where_the_family_writes_them(
    model: LlamaForCausalLM, batches: Batches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Dream's logits stand one place before their token."""
    shifts: list[int] = []
    made = trainer.masked_losses

    def seen(*given, shift: int = 0, **more):
        shifts.append(shift)
        return made(*given, shift=shift, **more)

    monkeypatch.setattr(trainer, "masked_losses", seen)
    train(model, batches, tmp_path, learning_rate=1e-3, warmup_updates=0, use_cpu=True, shift=1)
    assert shifts == [1] * 8


def test_a_run_reports_where_it_is_asked_to(
    model: LlamaForCausalLM, batches: Batches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    told: list[object] = []

    class Reporter(TrainerCallback):
        def on_train_begin(self, *_, **__):
            told.append(1)

    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "reporter", Reporter)
    for report_to in ("none", "reporter"):
        train(
            model, batches, tmp_path / report_to, learning_rate=1e-3, warmup_updates=0, use_cpu=True,
            report_to=report_to,
        )  # fmt: skip
    assert len(told) == 1


def test_bfloat16_is_for_gpus_and_cpus_that_have_it(monkeypatch: pytest.MonkeyPatch):
    for gpu, cpu, use_cpu, fast in (
        (True, "AVX2", False, True),
        (True, "AVX2", True, False),
        (False, "AVX2", False, False),
        (False, "AVX512_VNNI", True, True),
    ):
        monkeypatch.setattr(torch.cuda, "is_available", lambda gpu=gpu: gpu)
        monkeypatch.setattr(torch.backends, "cpu", SimpleNamespace(get_cpu_capability=lambda cpu=cpu: cpu))
        assert fast_in_bf16(use_cpu) is fast


def test_batches_end_where_they_are_said_to():
    batches = Batches(lambda number: {}, 3)
    assert len(list(batches)) == len(batches) == 3
    for number in (-1, 3):
        with pytest.raises(IndexError):
            batches[number]
