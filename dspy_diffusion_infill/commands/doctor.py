"""`diffusion-infill doctor`: what there is, what is missing, and whether a checkpoint can infill."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dspy_diffusion_infill.commands.terminal import (
    FAILED,
    Json,
    coloured,
    note,
    only_json,
    print_json,
    quieten,
    say,
)
from dspy_diffusion_infill.errors import MissingExtraError

if TYPE_CHECKING:
    from dspy_diffusion_infill.engine.verify import Check

COLOURS = {"fine": "green", "doubtful": "yellow", "failed": "red"}


def doctor(
    verify: Annotated[
        str | None, typer.Option(help="Checkpoint to try out: a folder, a hub id, or embedded.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what is installed, what it runs on, and what is served.

    --verify tries a checkpoint out. The first thing to run on a new machine. Exit code 1: a check of the
    checkpoint failed.
    """
    from dspy_diffusion_infill.commands import surroundings

    found = {
        "versions": surroundings.versions(),
        "devices": surroundings.devices(),
        "server": surroundings.served(),
        "missing": surroundings.missing(),
    }
    if not as_json:
        _show(found, surroundings.PURPOSES)
    checks = _verify(verify, as_json) if verify is not None else []
    if as_json:
        print_json({**found, "checks": [asdict(check) for check in checks]})
    else:
        _show_checks(checks)
    if any(check.verdict == "failed" for check in checks):
        raise typer.Exit(FAILED)


def _verify(source: str, as_json: bool) -> Sequence[Check]:
    quieten(source)
    try:
        from dspy_diffusion_infill.engine.model import load
        from dspy_diffusion_infill.engine.verify import Check, verify
    except ImportError as error:
        raise MissingExtraError("Trying a checkpoint out", "engine") from error
    with only_json(as_json):
        note(f"\nLoading {source}.")
        started = time.perf_counter()
        model = load(source)
        seconds = time.perf_counter() - started
        detail = (
            f"{model.name} on {model.device} in {seconds:.1f} s, {model.context_length} tokens of context"
        )
        return [Check("loads", "fine", detail), *verify(model)]


def _show(found: Mapping[str, Any], purposes: Mapping[str, str]) -> None:
    for name, version in found["versions"].items():
        say(f"{name:<22} {version or 'not installed'}")
    for one in found["devices"]:
        say(f"{one['device']:<22} {one['name']}{_memory(one)}")
    server = found["server"]
    state = f"serves {server['model']}" if server["model"] else f"no served model: {server['error']}"
    say(f"{server['url']:<22} {state}")
    say()
    for extra, names in found["missing"].items():
        how = (
            f"pip install 'dspy-diffusion-infill[{extra}]'   lacks {', '.join(names)}"
            if names
            else "installed"
        )
        say(f"{purposes[extra]:<42} {how}")


def _memory(device: Mapping[str, Any]) -> str:
    if device["memory"] is None:
        return ""
    free = f", {device['free'] / 1e9:.1f} free" if "free" in device else ""
    return f", {device['memory'] / 1e9:.1f} GB{free}"


def _show_checks(checks: Sequence[Check]) -> None:
    for check in checks:
        verdict = f"{check.verdict:<9}"
        shown = coloured(verdict, COLOURS[check.verdict], verdict)
        say(f"{shown}{check.name:<14} {check.detail}")
