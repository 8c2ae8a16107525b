"""The command line: `diffusion-infill`."""

from __future__ import annotations

import contextlib
import importlib
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from dspy_diffusion_infill.errors import InfillError, MissingExtraError

try:
    import typer
    from rich.console import Console
    from rich.text import Text

    from dspy_diffusion_infill.judges.command import judge
    from dspy_diffusion_infill.serving.command import serve
    from dspy_diffusion_infill.training.command import train
except ImportError as error:
    raise SystemExit(str(MissingExtraError("The command line", "cli"))) from error

app = typer.Typer(no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False)
console = Console(highlight=False, soft_wrap=True)

WHAT = {
    "before": "before",
    "after": "after",
    "oracle": "oracle, written by hand",
    "nearest": "nearest training instruction",
}


@app.callback()
def root() -> None:
    """Rewrite parts of a program's instructions with a masked diffusion LM; keep what measurably helps."""


@app.command()
def demo(
    lm: Annotated[str | None, typer.Option(help="Any dspy.LM name; COPRO then writes first.")] = None,
    seed: Annotated[int, typer.Option(help="Of the examples and the fillings.")] = 0,
    output: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("diffusion-infill-demo"),
) -> None:
    """Run the main job on a model and data that ship with the package."""
    console.print("Infilling a vague instruction from 16 labelled reviews; about a minute on two cores.")
    _quieten()
    from dspy_diffusion_infill.demo import NUM_SCORED, run_demo

    found = run_demo(lm=lm, seed=seed, output=output)
    labels = " ".join(found.scheme.labels)
    console.print(f"\nLabels from worst to best: {labels}. No training text used this scheme.\n")
    console.print(Text(f"  before  {found.instructions['before']}"))
    console.print(Text("  after   ").append_text(_marked(found.instructions["after"], found.change)))
    console.print(f"\nRight answers on {NUM_SCORED} other sentences:")
    for name, text in found.instructions.items():
        console.print(Text(f"  {found.scores[name]:6.1%}  {WHAT[name]:<29} {text}"))
    spent = f"{found.metric_calls} metric calls, {found.compile_s:.0f} s to compile"
    console.print(f"\n{spent}, {found.total_s:.0f} s in all.")
    console.print(Text(f"Report: {found.report}"))


app.command()(train)
app.command()(serve)
app.add_typer(judge, name="judge")


def _quieten() -> None:
    """The table says what the libraries' own lines would."""
    logging.getLogger("dspy.evaluate").setLevel(logging.WARNING)
    with contextlib.suppress(ModuleNotFoundError):  # the demo itself says what to install
        importlib.import_module("transformers.utils.logging").disable_progress_bar()


def _marked(text: str, change: Mapping[str, Any]) -> Text:
    """The text with what changed in bold, and in brackets where there are no colours."""
    end = change["start"] + len(change["after"])
    before, changed, after = text[: change["start"]], text[change["start"] : end], text[end:]
    if not console.is_terminal:
        changed = f"[{changed}]"
    return Text.assemble(before, (changed, "bold green"), after)


def main() -> None:
    """Run a command; an error of this package is one readable line."""
    try:
        app()
    except InfillError as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(Text(f"error: {error}"))
        sys.exit(1)


if __name__ == "__main__":
    main()
