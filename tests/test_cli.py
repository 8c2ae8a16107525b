"""The command line, without a model."""

import pytest
from typer.testing import CliRunner

from dspy_diffusion_infill import cli
from dspy_diffusion_infill.errors import SettingsError


def test_help_names_the_commands():
    found = CliRunner().invoke(cli.app, ["--help"])
    assert found.exit_code == 0
    assert "demo" in found.output


def test_an_error_of_the_package_is_one_line_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def refuse() -> None:
        raise SettingsError("window must be at least 1; got 0.")

    monkeypatch.setattr(cli, "app", refuse)
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 1
    assert capsys.readouterr().err == "error: window must be at least 1; got 0.\n"
