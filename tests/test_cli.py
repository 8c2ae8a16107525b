"""The command line, without a model: help, errors and exit codes."""

import os
import resource
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from dspy_diffusion_infill import cli
from dspy_diffusion_infill.commands.terminal import marked, only_json
from dspy_diffusion_infill.errors import (
    CanvasError,
    InfillerUnavailableError,
    MissingExtraError,
    ModelError,
    SettingsError,
)

AS_INSTALLED = (
    "import sys; sys.argv[0] = 'diffusion-infill'; from dspy_diffusion_infill.cli import main; main()"
)
"""What the installed script does."""


def run(code: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Python with arguments, in a process of its own."""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | variables)


def seconds_of(code: str, *arguments: str) -> float:
    """Processor time of a run, so that a busy machine does not count."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run(code, *arguments)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_names_every_command_and_the_exit_codes():
    found = CliRunner().invoke(cli.app, ["--help"])
    assert found.exit_code == 0
    for name in ("demo", "infill", "optimize", "train", "perplexity", "report", "doctor", "judge", "--debug"):
        assert f"\n  {name}" in found.output
    assert "0 fine, 1 the run failed, 2 what was asked for cannot be done" in found.output


@pytest.mark.parametrize("group", [[], ["judge"]])
def test_no_command_is_cut_short_where_80_columns_list_it(group: list[str]):
    found = CliRunner().invoke(cli.app, [*group, "--help"], env={"COLUMNS": "80"})
    _, commands = found.output.split("Commands:\n")
    assert not [line for line in commands.splitlines() if "..." in line or not line.endswith(".")]


def test_help_takes_less_than_half_a_second():
    assert min(seconds_of(AS_INSTALLED, "--help") for _ in range(3)) < 0.5


def test_help_loads_neither_dspy_nor_torch():
    code = (
        "import sys; from dspy_diffusion_infill import cli; names = ['', 'demo', 'infill', 'optimize',"
        " 'train', 'perplexity', 'report', 'doctor', 'judge align'];"
        " codes = {cli.run([*name.split(), '--help']) for name in names};"
        " print(codes, {'dspy', 'torch', 'transformers', 'rich'} & set(sys.modules))"
    )
    assert run(code).stdout.splitlines()[-1] == "{0} set()"


def test_a_misused_command_is_one_line_and_exit_code_2():
    done = run(AS_INSTALLED, "infil")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "error: No such command 'infil'. Did you mean 'infill'?\n"


def test_the_shell_completes_commands():
    words = {"COMP_WORDS": "diffusion-infill per", "COMP_CWORD": "1"}
    done = run(AS_INSTALLED, _DIFFUSION_INFILL_COMPLETE="complete_bash", **words)
    assert done.stdout.split() == ["perplexity"]


def fails(error: BaseException, *, debug: bool = False) -> int:
    """The exit code of a command that raises."""

    def refuse(**arguments: object) -> None:
        raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "app", refuse)
        return cli.run([], debug=debug)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (SettingsError("window must be at least 1; got 0."), 2, "error: window must be at least 1; got 0."),
        (CanvasError("Too long."), 2, "error: Too long."),
        (ModelError("No model."), 2, "error: No model."),
        (typer.BadParameter("no such file"), 2, "error: Invalid value: no such file"),
        (InfillerUnavailableError("No infiller\n  answers."), 1, "error: No infiller answers."),
        (SettingsError("a\x1b[2J"), 2, r"error: a\x1b[2J"),
        (OSError(28, "No space"), 1, "error: OSError: [Errno 28] No space --debug shows where."),
        (KeyboardInterrupt(), 130, "interrupted"),
        (typer.Abort(), 130, "interrupted"),
    ],
)
def test_every_error_is_one_line_with_its_exit_code(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
):
    assert fails(error) == code
    assert capsys.readouterr().err == f"{line}\n"


def test_what_was_found_before_an_error_is_said_with_it(capsys: pytest.CaptureFixture[str]):
    error = InfillerUnavailableError("Gone.")
    error.add_note("The best so far:\nRate it.")
    assert fails(error) == 1
    assert capsys.readouterr().err == "error: Gone. The best so far: Rate it.\n"


def test_debug_shows_the_traceback_wherever_it_stands(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    assert fails(SettingsError("no."), debug=True) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == "error: no."
    seen = []
    monkeypatch.setattr(cli, "app", lambda **given: seen.append(given["args"]))
    monkeypatch.setattr(sys, "argv", ["diffusion-infill", "demo", "--debug", "--seed", "1"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 0
    assert seen == [["demo", "--seed", "1"]]


def test_without_a_command_the_help_is_shown_and_the_exit_code_says_so(capsys: pytest.CaptureFixture[str]):
    assert cli.run([]) == 2
    assert "Commands:" in capsys.readouterr().out


def test_without_torch_the_engine_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    import dspy_diffusion_infill

    monkeypatch.delitem(vars(dspy_diffusion_infill), "DiffusionLM", raising=False)
    monkeypatch.delitem(sys.modules, "dspy_diffusion_infill.engine.lm", raising=False)
    monkeypatch.setitem(sys.modules, "dspy_diffusion_infill.engine.denoise", None)
    with pytest.raises(ModuleNotFoundError):
        dspy_diffusion_infill.DiffusionLM  # noqa: B018  (not one of the extra's packages: said as it is)
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "dspy_diffusion_infill.engine.denoise")
    with pytest.raises(MissingExtraError, match=r"pip install 'dspy-diffusion-infill\[engine\]'"):
        dspy_diffusion_infill.DiffusionLM  # noqa: B018


def test_json_stands_alone_beside_what_child_processes_print(capfd: pytest.CaptureFixture[str]):
    for wanted in (True, False):
        with only_json(wanted):
            os.write(1, b"of a child\n")
        os.write(1, b"{}\n")
        found = capfd.readouterr()
        assert (found.out, found.err) == (("{}\n", "of a child\n") if wanted else ("of a child\n{}\n", ""))


def test_without_a_standard_output_nothing_is_coloured(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdout", None)
    assert marked([("a", False), ("b", True)]) == "a[b]"
