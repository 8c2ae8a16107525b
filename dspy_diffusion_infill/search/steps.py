"""What the predictors of a program were given and gave back in one run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import dspy

from dspy_diffusion_infill.search.called import Calls
from dspy_diffusion_infill.search.fingerprint import digest


@dataclass(frozen=True, slots=True)
class Step:
    """One call of one predictor while a program ran."""

    predictor: str
    inputs: dict[str, Any]
    outputs: dict[str, Any]


def steps_of(program: dspy.Module, calls: Calls) -> tuple[Step, ...]:
    """The calls of a program's predictors in the trace in force.

    Copies, as Refine and BestOfN run them, are told by the signatures that they have from their originals.
    What a program's own threads called comes in the order of its inputs, lest chance decide what is shown.
    """
    predictors = program.named_predictors()
    shared = Counter(id(predictor.signature) for _, predictor in predictors)
    own = ((name, id(predictor.signature)) for name, predictor in predictors)
    names = {signature: name for name, signature in own if shared[signature] == 1}
    names |= {id(predictor): name for name, predictor in predictors}
    called = (
        (names.get(id(predictor)) or names.get(id(predictor.signature)), inputs, outputs)
        for predictor, inputs, outputs in dspy.settings.trace
    )
    steps = [Step(name, dict(inputs), dict(outputs.items())) for name, inputs, outputs in called if name]
    return tuple(sorted(steps, key=_by_inputs) if calls.in_threads else steps)


def _by_inputs(step: Step) -> tuple[str, str]:
    return step.predictor, digest(step.inputs)
