"""Read and write the instructions of a program, and copy programs without copying their LMs."""

from __future__ import annotations

import copy
from typing import cast

import dspy

from dspy_diffusion_infill.prompts.candidates import Candidate

REPORTS = ("candidate_programs", "trial_logs", "detailed_results")
"""What optimizers attach to a program they return."""


def signature_of(predictor: dspy.Predict) -> type[dspy.Signature]:
    """The predictor's signature class."""
    return cast(type[dspy.Signature], predictor.signature)


def instructions_of(program: dspy.Module) -> dict[str, str]:
    """The instructions of every predictor, by its name."""
    return {name: signature_of(predictor).instructions for name, predictor in program.named_predictors()}


def with_instructions(program: dspy.Module, candidate: Candidate) -> dspy.Module:
    """Copy a program and set its instructions; the program, its LMs and its signatures are not touched."""
    changed = copy_program(program)
    for name, predictor in changed.named_predictors():
        signature = signature_of(predictor)
        if signature.instructions != candidate[name]:
            predictor.signature = signature.with_instructions(candidate[name])
    return changed


def with_own_signatures(program: dspy.Module) -> dspy.Module:
    """Give predictors signature classes of their own, for who writes to these, as InferRules does."""
    for predictor in program.predictors():
        signature = signature_of(predictor)
        predictor.signature = signature.with_instructions(signature.instructions)
    return program


def copy_program(program: dspy.Module) -> dspy.Module:
    """Copy a program deeply, but share its LMs, and leave out the reports that optimizers attached to it.

    LMs may hold weights, locks and connections; reports may hold LMs.
    """
    originals = dict(program.named_predictors())
    modules = [module for _, module in program.named_sub_modules(dspy.Predict)]  # the frozen ones too
    lms = [lm for module in modules if (lm := vars(module)["lm"]) is not None]
    memo: dict[int, object] = {id(lm): lm for lm in lms}
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
