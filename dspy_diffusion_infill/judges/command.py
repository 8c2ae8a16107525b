"""`diffusion-infill judge`: options to arguments. What judging needs is loaded when a command runs."""

from __future__ import annotations

import contextlib
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dspy_diffusion_infill.errors import SettingsError

if TYPE_CHECKING:
    import dspy

judge = typer.Typer(no_args_is_help=True, help="Judge LMs and people.")


@judge.callback()
def root() -> None:
    """Judge LMs and people."""


@judge.command()
def align(
    scores: Annotated[Path, typer.Argument(help="CSV: score, response, and what the template shows.")],
    lm: Annotated[str, typer.Option(help="The judge: any dspy.LM name, or a model on --api-base.")],
    rubric: Annotated[
        str | None,
        typer.Option(
            help="A name in assets/judges.toml, or a TOML file like it; none if the template has one."
        ),
    ] = None,
    api_base: Annotated[str | None, typer.Option(help="vLLM server that holds the judge.")] = None,
    template: Annotated[str, typer.Option(help="In assets/judges.toml.")] = "judge",
    infiller: Annotated[
        str | None, typer.Option(help="A path, hub id or URL; else the served model.")
    ] = None,
    budget: Annotated[str, typer.Option(help="light, medium or heavy.")] = "light",
    held_out: Annotated[float, typer.Option(help="Share of the documents to measure on.")] = 0.5,
    samples: Annotated[int, typer.Option(help="Replies a judgement, averaged.")] = 1,
    seed: Annotated[int, typer.Option(help="Of division, fillings and intervals.")] = 0,
    threads: Annotated[int, typer.Option(help="Records graded at a time.")] = 8,
    output: Annotated[Path, typer.Option(help="Folder of judge, report and journals.")] = Path("judge"),
) -> None:
    """Rewrite a judge's rubric until its scores agree with people's."""
    import dspy

    from dspy_diffusion_infill.judges.align import align_judge
    from dspy_diffusion_infill.judges.prometheus import Judge
    from dspy_diffusion_infill.judges.templates import read_rubric
    from dspy_diffusion_infill.report import write_report

    if budget not in ("light", "medium", "heavy"):
        raise SettingsError(f"budget must be light, medium or heavy; got {budget!r}.")
    graded: Any = budget
    with dspy.context(lm=_lm(lm, api_base)):
        found = align_judge(
            scores,
            judge=Judge(
                read_rubric(rubric) if rubric else None, template=template, samples=samples, seed=seed
            ),
            infiller=infiller,
            budget=graded,
            held_out=held_out,
            seed=seed,
            num_threads=threads,
            log_dir=output / "journals",
        )
    found.judge.save(output / "judge.json")
    (output / "alignment.md").write_text(found.markdown(), encoding="utf-8")
    typer.echo(found.markdown())
    typer.echo(f"Report: {write_report(found.judge, output)}")


@judge.command()
def serve(
    model: Annotated[str, typer.Argument(help="A hub id or a folder.")],
    flags: Annotated[list[str] | None, typer.Argument(help="After --: any others of vLLM.")] = None,
    python: Annotated[
        str, typer.Option(help="Of the environment that vLLM is in.", show_default="this one")
    ] = sys.executable,
    conversation: Annotated[str, typer.Option(help="In assets/judges.toml: the chat template.")] = "v2",
    tensor_parallel_size: Annotated[int, typer.Option(help="GPUs that share the model.")] = 1,
    host: Annotated[str, typer.Option(help="To listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="To listen on.")] = 8000,
    api_key: Annotated[
        str | None, typer.Option(help="That clients must send.", envvar="VLLM_API_KEY")
    ] = None,
    log: Annotated[Path, typer.Option(help="Gets what vLLM prints.")] = Path("judge.log"),
) -> None:
    """Serve a judge with vLLM until Ctrl-C.

    A server that dies is started anew.
    """
    from dspy_diffusion_infill.judges.vllm import serve_judge

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the server as Ctrl-C does
    typer.echo(f"Starting {model}; the log is {log}.")
    with (
        contextlib.suppress(KeyboardInterrupt),
        serve_judge(
            model,
            python=python,
            conversation=conversation,
            tensor_parallel_size=tensor_parallel_size,
            flags=flags or (),
            host=host,
            port=port,
            api_key=api_key,
            log=log,
        ) as lm,
    ):
        name = lm.model.removeprefix("hosted_vllm/")
        typer.echo(f"{name} answers at {lm.server.url}. Ctrl-C ends it.")
        lm.server.watch()


def _lm(name: str, api_base: str | None) -> dspy.BaseLM:
    import dspy

    from dspy_diffusion_infill.judges.prometheus import judge_lm

    return judge_lm(name, api_base=api_base) if api_base else dspy.LM(name)
