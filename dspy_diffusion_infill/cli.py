"""The command line: `diffusion-infill`."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

from dspy_diffusion_infill.errors import (
    CanvasError,
    InfillError,
    MissingExtraError,
    ModelError,
    SettingsError,
)
from dspy_diffusion_infill.visible import visible

try:
    import typer

    from dspy_diffusion_infill.commands.demo import demo
    from dspy_diffusion_infill.commands.doctor import doctor
    from dspy_diffusion_infill.commands.infill import infill
    from dspy_diffusion_infill.commands.optimize import optimize
    from dspy_diffusion_infill.commands.perplexity import perplexity
    from dspy_diffusion_infill.commands.report import report
    from dspy_diffusion_infill.commands.terminal import FAILED, INTERRUPTED, USAGE
    from dspy_diffusion_infill.judges.command import judge
    from dspy_diffusion_infill.serving.command import serve
    from dspy_diffusion_infill.training.command import train
except ImportError as error:
    raise SystemExit(str(MissingExtraError("The command line", "cli"))) from error

USAGE_ERROR = typer.BadParameter.__base__ or typer.BadParameter
"""What typer raises for every misused option; whose class it is changed from version to version."""
REFUSED = (USAGE_ERROR, SettingsError, CanvasError, ModelError)
"""What says that something cannot be done, before anything is spent."""

app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Rewrite parts of a program's instructions with a masked diffusion LM; keep what measurably helps.

    Exit codes: 0 fine, 1 the run failed, 2 what was asked for cannot be done and nothing was spent, 130
    interrupted.
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(USAGE)


for command in (demo, infill, optimize, train, serve, perplexity, report, doctor):
    app.command()(command)
app.add_typer(judge, name="judge")


def main() -> None:
    """Run a command; whatever goes wrong is one readable line."""
    given = sys.argv[1:]
    # taken out here, so that it may stand anywhere
    sys.exit(run([word for word in given if word != "--debug"], debug="--debug" in given))


def run(arguments: Sequence[str], *, debug: bool = False) -> int:
    """Run a command.

    Args:
        arguments: As typed, without the program's name.
        debug: Whether an error shows its traceback.

    Returns:
        The exit code.
    """
    try:
        return app(args=list(arguments), standalone_mode=False) or 0
    except (KeyboardInterrupt, typer.Abort):
        typer.echo("interrupted", err=True)
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001  (the last stop: nothing goes on from here)
        if debug:
            traceback.print_exception(error)
        typer.echo(f"error: {one_line(error)}", err=True)
        return USAGE if isinstance(error, REFUSED) else FAILED


def one_line(error: Exception) -> str:
    r"""An error's message and notes, without a line break.

    Example:
        >>> one_line(SettingsError("window must be at least 1;\n got 0."))
        'window must be at least 1; got 0.'
    """
    notes = " ".join(getattr(error, "__notes__", ()))
    if isinstance(error, USAGE_ERROR):
        text = error.format_message()  # pyright: ignore[reportAttributeAccessIssue]  (typer's own)
    elif isinstance(error, InfillError):
        text = str(error)
    else:
        text = f"{type(error).__name__}: {error} --debug shows where."
    return visible(" ".join(f"{text} {notes}".split()))


if __name__ == "__main__":
    main()
