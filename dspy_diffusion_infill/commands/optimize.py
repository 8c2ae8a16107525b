"""`diffusion-infill optimize`: a program, data and a metric in files; a tuned program and a report out."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from dspy_diffusion_infill.commands.terminal import (
    INTERRUPTED,
    Json,
    marked,
    note,
    only_json,
    print_json,
    quieten,
    say,
)
from dspy_diffusion_infill.visible import visible


def optimize(
    context: typer.Context,
    program: Annotated[str, typer.Argument(help="module:object: a dspy.Module, or what makes one.")],
    trainset: Annotated[str, typer.Option(help="JSONL, CSV, or a hub id; :split may follow it.")],
    metric: Annotated[str, typer.Option(help="module:function.")],
    valset: Annotated[str | None, typer.Option(help="Selects; else the trainset does.")] = None,
    inputs: Annotated[str | None, typer.Option(help="Columns, such as a,b; else the program's.")] = None,
    max_examples: Annotated[int | None, typer.Option(min=1, help="Of a set, the first so many.")] = None,
    lm: Annotated[str | None, typer.Option(help="Any dspy.LM name; else the program's own.")] = None,
    api_base: Annotated[str | None, typer.Option(help="Server that has the LM.")] = None,
    infiller: Annotated[
        str | None, typer.Option(help="URL, path, hub id or embedded; else the served model.")
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="Optimizer to run first: dspy:COPRO, or module:object.")
    ] = None,
    budget: Annotated[
        str, typer.Option(help="light, medium, heavy, metric calls, or caps: seconds=600,usd=2.")
    ] = "light",
    lock: Annotated[list[str] | None, typer.Option(help="Text to keep; may be given again.")] = None,
    seed: Annotated[int, typer.Option(help="Of fillings and order.")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="Program runs at a time.")] = None,
    output: Annotated[Path, typer.Option(help="For program, report and journal.")] = Path("tuned"),
    resume: Annotated[bool, typer.Option(help="Go on from the journal in the output folder.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it may cost, and stop.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before spending.")] = False,
    as_json: Json = False,
) -> None:
    """Infill a DSPy program's instructions.

    Writes the tuned program and a report. It says what it may cost before it spends anything and, at a
    terminal, asks. The budget is never overrun. The same line goes on after an interruption, and pays for no
    score twice.
    """
    quieten(infiller)
    with only_json(as_json):
        found = _run(context.params)
    if as_json:
        print_json(found)
    elif "program" in found:
        _show(found)
    if found.get("stop_reason") == "interrupted":
        raise typer.Exit(INTERRUPTED)


def _run(options: Mapping[str, Any]) -> dict[str, Any]:
    """Tune and save, and say what was found; the estimate alone if nothing was to be spent."""
    from dspy_diffusion_infill.commands.program import asked, find_program, loading
    from dspy_diffusion_infill.commands.saving import check_savable, save
    from dspy_diffusion_infill.commands.tuning import prepare
    from dspy_diffusion_infill.prompts.program import instructions_of

    student, made = find_program(options["program"])
    with asked(student, options["lm"], options["api_base"]) as lm:
        tuning = prepare(student, options)
        estimate = tuning.estimate()
        counts = ", ".join(f"{len(examples)} in the {name}" for name, examples in tuning.sets.items())
        note(f"Program {options['program']}, LM {lm}; examples: {counts}.")
        note(f"Budget: {options['budget']}. {estimate}")
        for text in _idle(options["lock"] or (), instructions_of(student).values()):
            note(f"Nothing is locked by {text!r}: no instructions hold it.")
        if options["dry_run"] or not _agreed(options["yes"]):
            note("Nothing was spent.")
            return {"estimate": asdict(estimate)}
        check_savable(student, options["output"])
        tuned = tuning.compile(total=estimate.metric_calls, resume=options["resume"])
    files = save(tuned, options["output"])
    report: dict[str, Any] = vars(tuned)["detailed_results"]
    lines = loading(student, options["program"], made=made, file=files["program"])
    return {"estimate": asdict(estimate), **_summary(report), **files, "load": lines}


def _idle(locks: Iterable[str], texts: Iterable[str]) -> list[str]:
    """The locks that no text holds."""
    held = list(texts)
    return [lock for lock in locks if not any(lock in text for text in held)]


def _agreed(yes: bool) -> bool:
    """Whether to spend: a person at a terminal is asked; elsewhere the budget is the word."""
    return yes or not at_terminal() or typer.confirm("Go on?", err=True)


def at_terminal() -> bool:
    """Whether somebody can answer."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def _summary(report: Mapping[str, Any]) -> dict[str, Any]:
    names = (
        "instructions_before", "instructions_after", "changes", "score_before", "score_after", "confirmation",
        "stop_reason", "num_failures", "metric_calls", "resumed_calls", "tokens", "seconds",
    )  # fmt: skip
    return {name: report[name] for name in names}


def _show(found: Mapping[str, Any]) -> None:
    for predictor, after in found["instructions_after"].items():
        if len(found["instructions_after"]) > 1:
            say(f"\n{_shown(predictor)}:")
        say(f"before  {_shown(found['instructions_before'][predictor])}")
        shown = marked(_pieces(after, found["changes"].get(predictor)))
        say(f"after   {shown}")
    before, after = (_score(found[name]) for name in ("score_before", "score_after"))
    say(f"score   {before} -> {after} on the examples that select")
    if (check := found["confirmation"])["gain"] is not None:
        say(f"check   {check['verdict']}: {check['gain']:+.4g} on {check['num_examples']} examples kept out")
    say(f"spent   {found['metric_calls']} metric calls, {found['seconds']:.0f} s")
    if found["num_failures"]:
        say(f"failed  {found['num_failures']} of these runs, such as answers that could not be parsed")
    say(f"ended   {_shown(found['stop_reason'])}")
    say(f"\nProgram: {found['program']}\nReport:  {found['report']}\n\nLoad it with")
    for line in found["load"]:
        say(f"  {line}")


def _pieces(text: str, change: Mapping[str, Any] | None) -> Sequence[tuple[str, bool]]:
    """A text, cut where it changed."""
    if change is None:
        return [(_shown(text), False)]
    start, end = change["start"], change["start"] + len(change["after"])
    cut = ((text[:start], False), (text[start:end], True), (text[end:], False))
    return [(_shown(piece), changed) for piece, changed in cut]


def _shown(text: str) -> str:
    return visible(text).replace("\n", "\n        ")


def _score(value: float | None) -> str:
    return "not scored" if value is None else f"{value:.4g}"
