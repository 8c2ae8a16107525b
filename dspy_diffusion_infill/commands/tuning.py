"""What `diffusion-infill optimize` does, apart from what it says: prepare, estimate, compile."""

from __future__ import annotations

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
from dspy_diffusion_infill.commands.saving import JOURNAL, check_free
from dspy_diffusion_infill.commands.terminal import ended_as_by_ctrl_c
from dspy_diffusion_infill.errors import EvaluationError, SettingsError
from dspy_diffusion_infill.optimizer import DiffusionInfill
from dspy_diffusion_infill.prompts.canvas import Denoising
from dspy_diffusion_infill.search.estimate import Estimate
from dspy_diffusion_infill.serving.connect import connect


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

        Raises:
            EvaluationError: If the program, or an optimizer that runs first, ends the process.
        """
        console = Console(stderr=True, highlight=False, soft_wrap=True)
        with ended_as_by_ctrl_c(), shown(console, total) as bar:
            self.optimizer.callbacks.append(CountRuns(type(self.program), bar))
            try:
                return self.optimizer.compile(self.program, resume=resume, **self.sets)
            except SettingsError as error:  # of the journal
                said = str(error).replace("log_dir", "--output").replace("resume=False", "--no-resume")
                raise SettingsError(said) from error
            except SystemExit as error:  # of the user's code; as it is, it would end this one without a word
                raise EvaluationError(
                    f"The program must not end the process that runs it; it raised SystemExit: {error}."
                ) from error


def prepare(program: dspy.Module, options: Mapping[str, Any]) -> Tuning:
    """Read data and metric, find the infiller, and set the optimizer up.

    Args:
        program: To be tuned.
        options: Of the command, by the names of its parameters.

    Raises:
        SettingsError: If an option breaks its rule.
        InfillerUnavailableError: If no infiller answers.
    """
    check_free(Path(options["output"]))
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
