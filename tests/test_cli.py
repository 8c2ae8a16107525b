"""The command line, without a model."""

import sys

import pytest
from typer.testing import CliRunner

from dspy_diffusion_infill import cli
from dspy_diffusion_infill.errors import MissingExtraError, SettingsError


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
