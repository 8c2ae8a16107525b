"""Whether a program's prompts can be infilled at all, found out before anything is spent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dspy

from dspy_diffusion_infill.prompts.canvas import Infiller
from dspy_diffusion_infill.prompts.conditioning import fit
from dspy_diffusion_infill.prompts.locks import locked_spans
from dspy_diffusion_infill.prompts.program import signature_of
from dspy_diffusion_infill.prompts.protocols import program_locks
from dspy_diffusion_infill.prompts.render import render_window
from dspy_diffusion_infill.search.answers import checked_offsets
from dspy_diffusion_infill.search.rounds import check_scorer


def rehearse(settings: Mapping[str, Any], program: dspy.Module, infiller: Infiller) -> Infiller:
    """Lay out the first window of every predictor, without any example.

    Args:
        settings: By the names of `DiffusionInfill`.
        program: What is to be improved. Not modified.
        infiller: Returned as it is.

    Raises:
        SettingsError: If the infiller cannot say how likely a text is, and must.
        InfillError: If the infiller's tokens are none.
        CanvasError: If a prompt does not show its instructions once, or is too long for the infiller.
    """
    masking, locks = settings["masking"], program_locks(program, settings["lock"])
    check_scorer(infiller, masking, settings["selection"].screen)
    for name, predictor in program.named_predictors():
        text = signature_of(predictor).instructions
        offsets = checked_offsets(infiller.offsets(text), text, infiller)
        windows = masking.cutter(name, text)(text, offsets, locked_spans(text, locks[name]))
        for window in windows[:1]:
            fit(name, render_window(predictor, text, window), [], infiller)
    return infiller
