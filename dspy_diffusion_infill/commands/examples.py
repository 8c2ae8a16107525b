"""From rows to examples of a program, which says what its inputs are."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import dspy

from dspy_diffusion_infill.commands.rows import Row
from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.prompts.program import signature_of


def input_names(program: dspy.Module) -> tuple[list[str], list[str]]:
    """The inputs that a program needs, and those that it can do without.

    They are the parameters of its `forward`; where these are open, the input fields of its signature, or of
    its first predictor's.

    Example:
        >>> input_names(dspy.Predict("review, scale -> rating"))
        (['review', 'scale'], [])
    """
    # of the class: DSPy takes a look at the object's for a call, and warns
    forward = getattr(type(program), "forward", None)
    bound = forward.__get__(program) if forward else None
    parameters = list(inspect.signature(bound).parameters.values()) if bound else []
    if parameters and not any(one.kind in (one.VAR_KEYWORD, one.VAR_POSITIONAL) for one in parameters):
        needed = [one.name for one in parameters if one.default is one.empty]
        return needed, [one.name for one in parameters if one.default is not one.empty]
    signature = getattr(program, "signature", None)
    if not hasattr(signature, "input_fields"):
        signature = next((signature_of(one) for _, one in program.named_predictors()), None)
    return list(getattr(signature, "input_fields", ())), []


def make_examples(
    rows: Sequence[Row], program: dspy.Module, inputs: Sequence[str] | None = None
) -> list[dspy.Example]:
    """Make examples of rows; columns that are no inputs are labels.

    Args:
        rows: All columns are kept.
        program: Says what its inputs are.
        inputs: Columns that are inputs; None for those that the program takes.

    Raises:
        SettingsError: If a row lacks an input.
    """
    needed, optional = (list(inputs), []) if inputs is not None else input_names(program)
    examples = []
    for row in rows:
        if missing := [name for name in needed if name not in row.values]:
            raise SettingsError(
                f"A row must have the inputs {', '.join(needed)}; {row.place} has "
                f"{', '.join(row.values) or 'no columns'}, and lacks {', '.join(missing)}. Rename columns, "
                "or name those that are inputs with --inputs."
            )
        held = [name for name in (*needed, *optional) if name in row.values]
        examples.append(dspy.Example(dict(row.values)).with_inputs(*held))
    return examples
