"""What tells programs apart that have the same instructions, demos and names of LMs."""

from __future__ import annotations

import re

import dspy

from dspy_diffusion_infill.prompts.program import signature_of
from dspy_diffusion_infill.search.attributes import GATHERED, described, plain_part
from dspy_diffusion_infill.search.fingerprint import digest

TOLD = ("signature", "demos", "lm", "traces", "train", "stage", "_compiled", *GATHERED)
"""What predictors hold that is told elsewhere, or says nothing of what they do."""
LEFT = re.compile(rf"self\.(?:{'|'.join(GATHERED)})\b")
"""Programs that an optimizer left in one: those it tried."""


def kind_of(program: dspy.Module) -> str:
    """A digest of a program's modules, and of what its predictors are asked and set to.

    Prefixes of fields are left out: COPRO writes some, and DSPy's adapters no longer show them.
    """
    modules = [(name, found) for name, found in program.named_sub_modules() if not LEFT.match(name)]
    return digest([[name, described(module), _predictor(module)] for name, module in modules])


def _predictor(module: object) -> list[object]:
    if not isinstance(module, dspy.Predict):
        return []
    fields = signature_of(module).fields.items()
    asked = [
        [
            name,
            str(field.annotation),
            isinstance(extra := field.json_schema_extra, dict) and extra.get("desc"),
        ]
        for name, field in fields
    ]
    return [asked, plain_part({name: value for name, value in vars(module).items() if name not in TOLD})]
