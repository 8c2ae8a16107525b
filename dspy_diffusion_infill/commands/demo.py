"""`diffusion-infill demo`: options, and what it found as a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dspy_diffusion_infill.commands.terminal import marked, quieten, say

WHAT = {
    "before": "before",
    "after": "after",
    "oracle": "oracle, written by hand",
    "nearest": "nearest training instruction",
}


def demo(
    lm: Annotated[str | None, typer.Option(help="Any dspy.LM name; COPRO then writes first.")] = None,
    seed: Annotated[int, typer.Option(help="Of the examples and the fillings.")] = 0,
    output: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("diffusion-infill-demo"),
) -> None:
    """Run the main job on the model and data in this package."""
    say("Infilling a vague instruction from 16 labelled reviews; about a minute on two cores.")
    quieten("embedded")
    from dspy_diffusion_infill.demo import NUM_SCORED, run_demo

    found = run_demo(lm=lm, seed=seed, output=output)
    labels = " ".join(found.scheme.labels)
    say(f"\nLabels from worst to best: {labels}. No training text used this scheme.\n")
    after, start, change = found.instructions["after"], found.change["start"], found.change["after"]
    end = start + len(change)
    shown = marked([(after[:start], False), (change, True), (after[end:], False)])
    say(f"  before  {found.instructions['before']}")
    say(f"  after   {shown}")
    say(f"\nRight answers on {NUM_SCORED} other sentences:")
    for name, text in found.instructions.items():
        say(f"  {found.scores[name]:6.1%}  {WHAT[name]:<29} {text}")
    spent = f"{found.metric_calls} metric calls, {found.compile_s:.0f} s to compile"
    say(f"\n{spent}, {found.total_s:.0f} s in all.")
    say(f"Report: {found.report}")
