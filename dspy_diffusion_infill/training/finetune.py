"""Fine-tune a LLaDA or a Dream so that it infills prompts: data, stages, checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import PartialState
from datasets import Dataset
from transformers import PreTrainedModel, TrainerState

from dspy_diffusion_infill.engine import checkpoint
from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.training.card import model_card
from dspy_diffusion_infill.training.corpus import (
    Corpus,
    Examples,
    Stream,
    answered,
    as_example,
    encoded,
)
from dspy_diffusion_infill.training.data import Example
from dspy_diffusion_infill.training.masking import Objective
from dspy_diffusion_infill.training.mixing import Counts, Mixture, check_weights, count, fingerprint, mix
from dspy_diffusion_infill.training.monitor import HeldOut
from dspy_diffusion_infill.training.saving import adapted, merged, own_dtype, save
from dspy_diffusion_infill.training.settings import WITHOUT_EFFECT, Settings
from dspy_diffusion_infill.training.start import Start, read_weights
from dspy_diffusion_infill.training.train import Batches, check_gpus, train
from dspy_diffusion_infill.training.trainer import MaskedDiffusionTrainer
from dspy_diffusion_infill.training.updates import Updates
from dspy_diffusion_infill.training.work import (
    Record,
    as_record,
    begun,
    check,
    check_output,
    finish,
    last_checkpoint,
    work_folder,
)

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
    fingerprint: str
    """Of the encoded examples; of a stream, of those put aside."""

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
        SettingsError: If the data cannot be read, are too few, or do not go with the settings; or if several
            GPUs are there for one process.
    """
    if settings.max_tokens > start.context_length:
        raise SettingsError(
            f"max_tokens must be at most {start.context_length}, the context of {start.source!r}; "
            f"got {settings.max_tokens}."
        )
    if streaming and settings.updates is None:
        raise SettingsError("updates must be given for a stream, whose length is not known; got None.")
    check_weights(weights, data)
    check_gpus(settings.use_cpu)
    with PartialState(cpu=settings.use_cpu).main_process_first():  # the others read what the first wrote
        read = encoded(data, start.vocabulary, settings.max_tokens, streaming=streaming)
        kept = [answered(rows) for rows in read]
    mixture = mix(kept, settings.held_out, weights=weights, seed=settings.seed)
    names = tuple(data) if weights is None else tuple(map("{} ({:g})".format, data, weights))
    if streaming:
        return _streamed(start, names, settings, mixture)
    counts = count(read, kept, mixture)
    examples = Corpus(cast(Dataset, mixture.trained), settings.seed)
    aside = [as_example(cast(Any, row)) for row in mixture.held_out]
    return Plan(start, names, settings, examples, aside, counts, fingerprint(kept))


def _streamed(start: Start, data: tuple[str, ...], settings: Settings, mixture: Mixture) -> Plan:
    rows = list(mixture.held_out)
    examples = Stream(mixture.trained, settings.seed, 2 * settings.batch)
    seen = fingerprint([Dataset.from_list(rows)]) if rows else ""
    return Plan(start, data, settings, examples, list(map(as_example, rows)), None, seen)


def finetune(plan: Plan, output: Path) -> None:
    """Run the stages and write the checkpoint; a run that was cut short goes on where it stopped.

    Work in progress lies beside the output, in a folder of its name with "-work" added, until all is done.

    Args:
        plan: From `prepare`.
        output: Folder of the checkpoint. Must not exist.

    Raises:
        SettingsError: If `output` exists, something other than this run's work lies beside it, or another
            process is at this work.
    """
    check_output(output)
    work, state = work_folder(output), PartialState(cpu=plan.settings.use_cpu)
    record = record_of(plan)
    check(work, record)
    state.wait_for_everyone()  # all have looked before the first writes
    with begun(output, record) if state.is_main_process else nullcontext():
        state.wait_for_everyone()
        done = _run(plan, len(plan.settings.stages) - 1, work)
        if isinstance(plan.examples, Stream):
            logger.info("%d of %d examples were truncated", plan.examples.truncated, plan.examples.num_read)
        if state.is_main_process:
            finish(work, done, output)
    state.wait_for_everyone()


def record_of(plan: Plan) -> Record:
    """What two runs that come to the same end have in common."""
    settings = {name: value for name, value in asdict(plan.settings).items() if name not in WITHOUT_EFFECT}
    model = {"model": plan.start.source, "contents of model": checkpoint.fingerprint(plan.start.folder)}
    data = {"data": plan.data, "contents of data": plan.fingerprint}
    return as_record({**model, **data, **settings})


def _run(plan: Plan, number: int, work: Path) -> Path:
    """One stage after those before it, or what it left behind if it is done."""
    settings, stage = plan.settings, plan.settings.stages[number]
    done = work / f"{number}-{stage}-done"
    if done.is_dir():
        return done
    before = _run(plan, number - 1, work) if number else None
    model = adapted(read_weights(plan.start, before), settings)
    num_updates = plan.num_updates(stage)
    trainer = train(
        cast(PreTrainedModel, model),
        Batches(_updates(plan, number), num_updates * settings.num_batches),
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
    _save(trainer, plan, number, before, done)
    logger.info("stage %s is done", stage)
    return done


def _save(trainer: MaskedDiffusionTrainer, plan: Plan, number: int, before: Path | None, done: Path) -> None:
    """Gather the weights from all processes, and write them from the first."""
    gathered = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if trainer.accelerator.is_main_process:
        last = number == len(plan.settings.stages) - 1
        network = merged(plan.start, before, plan.settings, cast(dict[str, Any], gathered))
        dtype = own_dtype(plan.start) if last else torch.float32
        log = [*_logs_before(plan, number, done.parent), *trainer.state.log_history]
        card = model_card(
            plan.start.source, plan.data, plan.settings, plan.counts, log, shift=plan.start.shift
        )
        save(network, plan.start, done, dtype, card)
    trainer.accelerator.wait_for_everyone()


def _logs_before(plan: Plan, number: int, work: Path) -> list[dict[str, Any]]:
    """What was measured in the stages before one, as Trainer kept it."""
    folders = [work / f"{one}-{stage}" for one, stage in enumerate(plan.settings.stages[:number])]
    states = [Path(found) / "trainer_state.json" for folder in folders if (found := last_checkpoint(folder))]
    return [entry for state in states for entry in TrainerState.load_from_json(str(state)).log_history]


def _updates(plan: Plan, number: int) -> Updates:
    settings = plan.settings
    return Updates(
        plan.examples,
        plan.start.vocabulary,
        settings.stages[number],
        batch=settings.batch,
        num_batches=settings.num_batches,
        seed=settings.seed,
        stage=number,
        mix=settings.mix,
        weighting=settings.weighting,
        stratify=settings.stratify,
    )


def _monitor(plan: Plan) -> HeldOut | None:
    if not plan.held_out:
        return None
    return HeldOut(plan.held_out, plan.start.vocabulary, shift=plan.start.shift, seed=plan.settings.seed)
