"""The accepted edits that a program carries, and how to take one back."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import dspy

from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.prompts.candidates import Candidate
from dspy_diffusion_infill.prompts.own import uses_name
from dspy_diffusion_infill.prompts.program import instructions_of, with_instructions
from dspy_diffusion_infill.search.edits import Edit, as_edit, before_edits, revert_edit

logger = logging.getLogger(__name__)


def revert(program: dspy.Module, number: int, *, edits: Sequence[Edit] | None = None) -> dspy.Module:
    """Take one accepted edit of a compiled program back.

    Args:
        program: As `DiffusionInfill.compile` returned it, or as it was loaded. Not modified.
        number: Of the edit in `program.edits`, from 0.
        edits: Those of a program that lost them when DSPy saved its state as JSON (a copy, a pickle, and
            `save(..., save_program=True)` keep them): `Edit.of` each of `detailed_results["edits"]` in the
            `run.json` that `write_report` wrote.

    Returns:
        A copy without the edit; its `edits` are the others. What the run said of the program as a whole
        (`detailed_results` and so on) no longer holds, and is left out.

    Raises:
        SettingsError: If there is no such edit, or a later one rewrote some of the same text.

    Example:
        >>> program = dspy.Predict(dspy.Signature("review -> rating", "Grade it."))
        >>> program.edits = [Edit("self", 0, "Rate", "Grade", 0.1, (0.0, 0.2), ((3, 1.0),), 16, 1)]
        >>> revert(program, 0).signature.instructions
        'Rate it.'
    """
    found = edits_of(program, edits)
    texts, others = revert_edit(instructions_of(program), found, number)
    return with_edits(program, texts, others)


def edits_of(program: dspy.Module, edits: Sequence[Edit] | None = None) -> list[Edit]:
    """The edits given, else those that the program carries.

    Raises:
        SettingsError: If it carries none, or they did not lead to its instructions.
    """
    found = _edits_in(vars(program).get("edits") if edits is None else edits)
    if found is None:
        raise SettingsError(
            f"program must be one that DiffusionInfill compiled, with its edits; got a "
            f"{type(program).__name__} without. Pass edits=."
        )
    before_edits(instructions_of(program), found)
    return found


def attach_edits(program: dspy.Module, edits: Sequence[Edit]) -> None:
    """Let a program carry its edits, unless it has an attribute of that name itself."""
    if uses_name(program, "edits") or _edits_in(vars(program).get("edits", ())) is None:
        logger.warning("The program has `edits` of its own; this run's are in detailed_results alone.")
    else:
        vars(program)["edits"] = list(edits)


def _edits_in(value: object) -> list[Edit] | None:
    """The edits of a list of them; None for anything else."""
    found = [as_edit(item) for item in value] if isinstance(value, list | tuple) else [None]
    edits = [edit for edit in found if edit is not None]
    return edits if len(edits) == len(found) else None


def with_edits(program: dspy.Module, texts: Candidate, edits: Sequence[Edit]) -> dspy.Module:
    """A copy of a program with other instructions, and the edits that led to them."""
    changed = with_instructions(program, texts)
    attach_edits(changed, edits)
    return changed
