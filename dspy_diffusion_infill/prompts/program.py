"""Read and write the instructions of a program, and copy programs without copying their LMs."""

from __future__ import annotations

import copy

import dspy

from dspy_diffusion_infill.prompts.candidates import Candidate

REPORTS = ("candidate_programs", "trial_logs", "detailed_results")
"""What optimizers attach to a program they return."""


def instructions_of(program: dspy.Module) -> dict[str, str]:
    """The instructions of every predictor, by its name."""
    return {name: predictor.signature.instructions for name, predictor in program.named_predictors()}


def with_instructions(program: dspy.Module, candidate: Candidate) -> dspy.Module:
    """Copy a program and set its instructions; the given program, its LMs and its signatures are not touched."""
    changed = copy_program(program)
    for name, predictor in changed.named_predictors():
        if predictor.signature.instructions != candidate[name]:
            predictor.signature = predictor.signature.with_instructions(candidate[name])
    return changed


def copy_program(program: dspy.Module) -> dspy.Module:
    """Copy a program deeply, except for its LMs, which are shared, and reports attached to it, which are left out.

    LMs may hold weights, locks and connections; reports of other optimizers may hold LMs.
    """
    originals = dict(program.named_predictors())
    memo: dict[int, object] = {id(p.lm): p.lm for p in originals.values() if p.lm is not None}
    memo |= {id(vars(program)[name]): () for name in REPORTS if name in vars(program)}
    try:
        copied = copy.deepcopy(program, memo)
    except TypeError:  # an attribute that cannot be copied; DSPy's own copy then shares that attribute
        copied = program.deepcopy()
    for name, predictor in copied.named_predictors():
        predictor.lm = originals[name].lm
    for name in REPORTS:
        vars(copied).pop(name, None)
    return copied
