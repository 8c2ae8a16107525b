"""`diffusion-infill train`: options to settings. Torch is loaded when the command runs, not before."""

from __future__ import annotations

import logging
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from dspy_diffusion_infill.errors import MissingExtraError, SettingsError
from dspy_diffusion_infill.training.work import check_apart, check_output, read_record


def train(
    context: typer.Context,
    model: Annotated[str, typer.Option(help="A LLaDA or a Dream: a folder, a hub id, or embedded.")],
    data: Annotated[list[str], typer.Option(help="A file, a folder or a hub id; may be given again.")],
    output: Annotated[Path, typer.Option(help="Folder of the checkpoint.")],
    stages: Annotated[str, typer.Option(help="fs masks anywhere, ro responses only.")] = "fs,ro",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it takes, and stop.")] = False,
    tflops: Annotated[float, typer.Option(help="Sustained, of all devices: for the estimate.")] = 300.0,
    weights: Annotated[
        str, typer.Option(help="Share of each source, such as 0.7,0.3; an epoch ends when all rows came.")
    ] = "",
    streaming: Annotated[bool, typer.Option("--streaming", help="Read rows when needed.")] = False,
    epochs: Annotated[float | None, typer.Option(help="Of each stage; else 8 of fs, 4 of ro.")] = None,
    updates: Annotated[int | None, typer.Option(help="Of each stage, in place of epochs.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Else the paper's, by family.")] = None,
    batch: Annotated[int | None, typer.Option(help="Examples an update; else the paper's.")] = None,
    num_batches: Annotated[
        int | None, typer.Option(help="Batches an update is split into; else as many examples each as there.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longer examples are cut.")] = None,
    mix: Annotated[float | None, typer.Option(help="Share masked by the other objective.")] = None,
    weighting: Annotated[str | None, typer.Option(help="mean, or LLaDA's inverse_t.")] = None,
    stratify: Annotated[bool, typer.Option("--stratify", help="Spread noise levels evenly.")] = False,
    lora: Annotated[int | None, typer.Option(help="Rank of adapters; 0: train all weights.")] = None,
    dora: Annotated[bool, typer.Option("--dora", help="DoRA in place of LoRA.")] = False,
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="Less memory, more time.")
    ] = False,
    held_out: Annotated[int | None, typer.Option(help="Examples to measure losses with; else 64.")] = None,
    save_updates: Annotated[int | None, typer.Option(help="Updates between checkpoints; else 200.")] = None,
    seed: Annotated[int, typer.Option(help="Of data order and noise.")] = 0,
    use_cpu: Annotated[bool, typer.Option("--cpu", help="Stay on the CPU.")] = False,
    report_to: Annotated[str | None, typer.Option(help="tensorboard, wandb, ...")] = None,
    push_to_hub: Annotated[
        str | None, typer.Option(help="Hub id to upload to; made private if it is new.")
    ] = None,
) -> None:
    """Fine-tune a diffusion LM so that it can infill prompts."""
    if not push_to_hub or read_record(output) is None:
        check_output(output)
    check_apart(output, context.params["data"])
    if not 0 < tflops < math.inf:
        raise SettingsError(f"tflops must be above 0 and finite; got {tflops}.")
    plan, estimate = _plan({**context.params, "stages": tuple(stages.split(","))})
    typer.echo(estimate)
    if not dry_run:
        _finetune(plan, output, push_to_hub)


def _plan(options: dict[str, Any]) -> tuple[Any, str]:
    """The run that the options ask for, and what it takes."""
    try:
        from dspy_diffusion_infill.training.dry_run import dry_run as estimate
        from dspy_diffusion_infill.training.finetune import prepare
        from dspy_diffusion_infill.training.saving import check_repository
        from dspy_diffusion_infill.training.settings import defaults
        from dspy_diffusion_infill.training.start import read_start
    except ImportError as error:
        raise MissingExtraError("Training", "train") from error
    if options["push_to_hub"] and not options["dry_run"]:
        check_repository(options["push_to_hub"])
    start = read_start(options["model"], weights=not options["dry_run"])
    plan = prepare(
        start,
        options["data"],
        _settings(defaults(start), options),
        weights=_numbers(options["weights"]) or None,
        streaming=options["streaming"],
    )
    return plan, estimate(plan, tflops=options["tflops"])


def _settings(paper: Any, options: dict[str, Any]) -> Any:
    """The paper's settings but for those given; a batch of another size is split into parts of the same."""
    known = {field.name for field in fields(paper)}
    given = {name: value for name, value in options.items() if name in known and value is not None}
    if "batch" in given:
        given.setdefault("num_batches", max(1, given["batch"] * paper.num_batches // paper.batch))
    return replace(paper, **given)


def _finetune(plan: Any, output: Path, push_to_hub: str | None) -> None:
    from accelerate import PartialState

    from dspy_diffusion_infill.training.finetune import finetune, record_of
    from dspy_diffusion_infill.training.saving import push

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    logging.getLogger("dspy_diffusion_infill").setLevel(logging.INFO)
    if not push_to_hub or read_record(output) != record_of(plan):  # else all that lacks is its upload
        try:
            finetune(plan, output)
        except KeyboardInterrupt:
            typer.echo("Stopped. The same line goes on from the last checkpoint.", err=True)
            raise
    if not PartialState().is_main_process:
        return
    typer.echo(f"Checkpoint: {output}")
    if push_to_hub:
        typer.echo(f"Uploaded: {push(output, push_to_hub)}")


def _numbers(text: str) -> list[float]:
    try:
        return [float(number) for number in text.split(",") if number]
    except ValueError as error:
        raise SettingsError(f"weights must be numbers with commas between; got {text!r}.") from error
