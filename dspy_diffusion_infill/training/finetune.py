"""Fine-tune a LLaDA or a Dream so that it infills prompts: data, stages, checkpoint."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import PartialState
from datasets import Dataset, IterableDataset
from transformers import PreTrainedModel

from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.training.card import model_card
from dspy_diffusion_infill.training.corpus import Corpus, Counts, Examples, Stream, count, encoded
from dspy_diffusion_infill.training.data import Example
from dspy_diffusion_infill.training.masking import Objective
from dspy_diffusion_infill.training.monitor import HeldOut
from dspy_diffusion_infill.training.saving import adapted, merged, own_dtype, save, write_whole
from dspy_diffusion_infill.training.settings import Settings
from dspy_diffusion_infill.training.start import Start, read_weights
from dspy_diffusion_infill.training.train import Batches, MaskedDiffusionTrainer, train
from dspy_diffusion_infill.training.updates import Updates

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Plan:
    """A run, before any weight is read."""

    start: Start
    data: tuple[str, ...]
    """Sources, with their weights if they have any."""
    settings: Settings
    examples: Examples
    held_out: list[Example]
    counts: Counts | None
    """None for a stream, which is not read before it is needed."""

    def num_updates(self, stage: Objective) -> int:
        """Updates of a stage."""
        num_examples = self.counts.examples - self.settings.held_out if self.counts else 0
        return self.settings.num_updates(stage, num_examples)


def prepare(
    start: Start,
    data: Sequence[str],
    settings: Settings,
    *,
    weights: Sequence[float] | None = None,
    streaming: bool = False,
) -> Plan:
    """Read and encode the data, and put some of it aside.

    Args:
        start: The checkpoint.
        data: Files, folders or hub ids, as `sources.read` takes them.
        settings: Of the run.
        weights: Share of each source; None for all rows of all of them.
        streaming: Read rows as they are needed; then `settings.updates` says where a stage ends.

    Raises:
        SettingsError: If the data cannot be read, are too few, or do not go with the settings.
    """
    if settings.max_tokens > start.context_length:
        raise SettingsError(
            f"max_tokens must be at most {start.context_length}, the context of {start.source!r}; "
            f"got {settings.max_tokens}."
        )
    with PartialState(cpu=settings.use_cpu).main_process_first():  # the others read what the first wrote
        rows = encoded(
            data,
            start.vocabulary,
            settings.max_tokens,
            weights=weights,
            seed=settings.seed,
            streaming=streaming,
        )
    names = tuple(data) if weights is None else tuple(map("{} ({:g})".format, data, weights))
    if isinstance(rows, Dataset):
        return _counted(start, names, settings, rows)
    return _streamed(start, names, settings, rows)


def _counted(start: Start, data: tuple[str, ...], settings: Settings, rows: Dataset) -> Plan:
    kept, counts = count(rows)
    if counts.examples <= settings.held_out:
        raise SettingsError(
            f"held_out must be below {counts.examples}, the number of examples; got {settings.held_out}."
        )
    shuffled = kept.shuffle(seed=settings.seed)
    held_out = Corpus(shuffled.select(range(settings.held_out)), settings.seed)
    trained = Corpus(shuffled.select(range(settings.held_out, len(kept))), settings.seed)
    aside = [held_out[number] for number in range(settings.held_out)]
    return Plan(start, data, settings, trained, aside, counts)


def _streamed(start: Start, data: tuple[str, ...], settings: Settings, rows: IterableDataset) -> Plan:
    if settings.updates is None:
        raise SettingsError("updates must be given for a stream, whose length is not known; got None.")
    held_out = Stream(rows.take(settings.held_out), settings.seed, settings.held_out)
    examples = Stream(rows.skip(settings.held_out), settings.seed, 2 * settings.batch)
    aside = [held_out[number] for number in range(settings.held_out)]
    return Plan(start, data, settings, examples, aside, None)


def finetune(plan: Plan, output: Path) -> None:
    """Run the stages and write the checkpoint; a run that was cut short goes on where it stopped.

    Work in progress lies beside the output, in a folder of its name with "-work" added, until all is done.

    Args:
        plan: From `prepare`.
        output: Folder of the checkpoint. Must not exist.

    Raises:
        SettingsError: If `output` exists, or another run's work lies beside it.
    """
    if output.exists():
        raise SettingsError(f"output must not exist yet; got {str(output)!r}. Name another, or remove it.")
    work = output.with_name(output.name + "-work")
    _claim(work, plan)
    before = None
    for number, stage in enumerate(plan.settings.stages):
        before = _run(plan, number, before, work)
        logger.info("stage %s is done", stage)
    if isinstance(plan.examples, Stream):
        logger.info("%d of %d examples were truncated", plan.examples.truncated, plan.examples.num_read)
    state = PartialState(cpu=plan.settings.use_cpu)
    if state.is_main_process:
        cast(Path, before).rename(output)
        shutil.rmtree(work)
    state.wait_for_everyone()


def _claim(work: Path, plan: Plan) -> None:
    """Refuse to go on with what other settings began."""
    run = json.dumps(
        {"model": plan.start.source, "data": plan.data, "settings": asdict(plan.settings)}, indent=1
    )
    path = work / "run.json"
    if path.is_file() and path.read_text(encoding="utf-8") != run:
        raise SettingsError(
            f"{str(work)!r} must hold this run's own work; its run.json says that other settings began it. "
            "Repeat those, name another output, or remove the folder."
        )
    if PartialState(cpu=plan.settings.use_cpu).is_main_process and not path.is_file():
        shutil.rmtree(work, ignore_errors=True)
        write_whole(work, lambda saving: _write(saving / "run.json", run))
    PartialState(cpu=plan.settings.use_cpu).wait_for_everyone()


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _run(plan: Plan, number: int, before: Path | None, work: Path) -> Path:
    """One stage, or what it left behind if it is done."""
    settings, stage = plan.settings, plan.settings.stages[number]
    done = work / f"{number}-{stage}-done"
    if done.is_dir():
        return done
    model = adapted(read_weights(plan.start, before), settings)
    num_updates = plan.num_updates(stage)
    trainer = train(
        cast(PreTrainedModel, model),
        Batches(_updates(plan, stage), num_updates * settings.num_batches),
        work / f"{number}-{stage}",
        learning_rate=settings.learning_rate,
        warmup_updates=min(settings.warmup_updates, num_updates // 4),
        seed=settings.seed,
        save_updates=settings.save_updates,
        use_cpu=settings.use_cpu,
        accumulation=settings.num_batches,
        shift=plan.start.shift,
        gradient_checkpointing=settings.gradient_checkpointing,
        monitor=_monitor(plan),
        monitor_updates=settings.monitor_updates,
        report_to=settings.report_to,
    )
    _finish(trainer, plan, number, before, done)
    return done


def _finish(
    trainer: MaskedDiffusionTrainer, plan: Plan, number: int, before: Path | None, done: Path
) -> None:
    """Gather the weights from all processes, and write them from the first."""
    gathered = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if trainer.accelerator.is_main_process:
        last = number == len(plan.settings.stages) - 1
        network = merged(plan.start, before, plan.settings, cast(dict[str, Any], gathered))
        dtype = own_dtype(plan.start) if last else torch.float32
        card = model_card(plan.start.source, plan.data, plan.settings, plan.counts, trainer.state.log_history)
        save(network, plan.start, done, dtype, card)
    trainer.accelerator.wait_for_everyone()


def _updates(plan: Plan, stage: Objective) -> Updates:
    settings = plan.settings
    return Updates(
        plan.examples,
        plan.start.vocabulary,
        stage,
        batch=settings.batch,
        num_batches=settings.num_batches,
        seed=settings.seed,
        mix=settings.mix,
        weighting=settings.weighting,
        stratify=settings.stratify,
        pack=settings.pack,
    )


def _monitor(plan: Plan) -> HeldOut | None:
    if not plan.held_out:
        return None
    return HeldOut(plan.held_out, plan.start.vocabulary, shift=plan.start.shift, seed=plan.settings.seed)
