"""What `diffusion-infill optimize` does, apart from what it says: prepare, estimate, compile, save."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dspy
from rich.console import Console

from dspy_diffusion_infill.commands.caps import read_budget
from dspy_diffusion_infill.commands.examples import make_examples
from dspy_diffusion_infill.commands.objects import find_object
from dspy_diffusion_infill.commands.program import find_base
from dspy_diffusion_infill.commands.progress import CountRuns, shown
from dspy_diffusion_infill.commands.rows import read_rows
from dspy_diffusion_infill.optimizer import DiffusionInfill
from dspy_diffusion_infill.prompts.canvas import Denoising
from dspy_diffusion_infill.report import write_report
from dspy_diffusion_infill.search.estimate import Estimate
from dspy_diffusion_infill.serving.connect import connect

PROGRAM, JOURNAL = "program.json", "journal"
"""In the output folder, beside the report."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """One run of the optimizer, before it has spent anything."""

    program: dspy.Module
    optimizer: DiffusionInfill
    sets: Mapping[str, Any]
    """trainset and valset."""

    def estimate(self) -> Estimate:
        """What it may cost."""
        return self.optimizer.estimate(self.program, **self.sets)

    def compile(self, *, total: int | None, resume: bool) -> dspy.Module:
        """Run it, and show on standard error how far it is.

        Args:
            total: Metric calls that it may spend; None if that is not capped.
            resume: Whether to go on from the journal.
        """
        with shown(Console(stderr=True, highlight=False, soft_wrap=True), total) as bar:
            self.optimizer.callbacks.append(CountRuns(type(self.program), bar))
            return self.optimizer.compile(self.program, resume=resume, **self.sets)


def prepare(program: dspy.Module, options: Mapping[str, Any]) -> Tuning:
    """Read data and metric, find the infiller, and set the optimizer up.

    Args:
        program: To be tuned.
        options: Of the command, by the names of its parameters.

    Raises:
        SettingsError: If an option breaks its rule.
        InfillerUnavailableError: If no infiller answers.
    """
    metric = find_object(options["metric"], option="metric")
    named = options["inputs"]
    columns = [name.strip() for name in named.split(",")] if named else None
    sets = {
        name: make_examples(read_rows(source, limit=options["max_examples"]), program, columns)
        for name in ("trainset", "valset")
        if (source := options[name]) is not None
    }
    optimizer = DiffusionInfill(
        metric,
        base=find_base(options["base"], metric),
        budget=read_budget(options["budget"]),
        lock=list(options["lock"] or ()) or "auto",
        seed=options["seed"],
        num_threads=options["threads"],
        log_dir=Path(options["output"], JOURNAL),
        # last, since a model takes long to load; and here, so that estimate and run share it
        infiller=connect(options["infiller"], Denoising()),
    )
    return Tuning(program, optimizer, sets)


def save(tuned: dspy.Module, folder: str | os.PathLike[str]) -> dict[str, str]:
    """Write the tuned program and its report; where they are, by what they are."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tuned.save(folder / PROGRAM)
    return {"program": str(folder / PROGRAM), "report": str(write_report(tuned, folder))}
