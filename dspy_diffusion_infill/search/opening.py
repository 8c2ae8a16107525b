"""From a user's settings and data to a session, checked before anything is spent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dspy

from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.prompts.protocols import check_masking, idle_locks, program_locks
from dspy_diffusion_infill.search.budget import Meter, resolve_budget
from dspy_diffusion_infill.search.metrics import Metric
from dspy_diffusion_infill.search.saying import logger
from dspy_diffusion_infill.search.session import Session
from dspy_diffusion_infill.search.task import make_task
from dspy_diffusion_infill.traces import Trace


def open_session(
    settings: Mapping[str, Any],
    metric: Metric,
    student: dspy.Module,
    trainset: list[dspy.Example],
    valset: list[dspy.Example] | None,
    traces: Sequence[Trace] | None,
) -> Session:
    """Put together what the steps of a run share.

    Args:
        settings: By the names of `DiffusionInfill`, each checked on its own before.
        metric: The user's, or the base's.
        student: As for `compile`, and so are the others.
        trainset: Conditions.
        valset: Selects.
        traces: Condition besides.

    Raises:
        SettingsError: If an argument breaks its rule, or does not fit the settings.
    """
    if traces is not None and not isinstance(traces, Sequence):
        raise SettingsError(
            f"traces must be a list of Trace objects (log.traces); got a {type(traces).__name__}."
        )
    if traces and settings["condition_on"] == "examples":
        raise SettingsError(
            "traces must be left out with condition_on='examples', which shows none of them. "
            "Say condition_on='traces' or 'both'."
        )
    task = make_task(student, trainset, valset, traces or ())
    task = task.split(settings["selection"].holdout, settings["seed"])
    check_masking(settings["masking"], student)
    program_locks(student, settings["lock"])  # refuses unknown names, before the base has spent anything
    if idle := idle_locks(student, settings["lock"]):
        logger.warning("These locks lock nothing in the present instructions: %s.", idle)
    repeats = settings["selection"].repeats
    budget = resolve_budget(settings["budget"], repeats * len(task.valset), repeats * len(task.holdout))
    return Session(
        task=task,
        metric=metric,
        meter=Meter(budget, reserved=2 * repeats * len(task.holdout)),
        selection=settings["selection"],
        num_threads=settings["num_threads"],
        condition_on=settings["condition_on"],
    )
