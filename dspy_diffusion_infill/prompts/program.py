"""Read and write the instructions of a program, and copy programs without copying their LMs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import dspy

from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.prompts.candidates import Candidate
from dspy_diffusion_infill.prompts.copying import copied_as_far_as_can_be
from dspy_diffusion_infill.prompts.own import uses_name

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

    LMs may hold weights, locks and connections; reports may hold LMs. What a program's own code speaks of by
    such a name is no report.

    Raises:
        SettingsError: If a predictor is held by something that cannot be copied.
    """
    predictors = all_predictors(program)
    memo: dict[int, Any] = {id(lm): lm for each in predictors if (lm := vars(each)["lm"]) is not None}
    held = {name: vars(program).get(name) for name in REPORTS if not uses_name(program, name)}
    reports = {name: value for name, value in held.items() if _is_report(value)}
    memo |= {id(report): () for report in reports.values()}
    copied = copied_as_far_as_can_be(program, memo)
    for name in reports:
        vars(copied).pop(name, None)
    _check_apart(predictors, all_predictors(copied))
    return copied


def attach_reports(program: dspy.Module, reports: Mapping[str, object]) -> None:
    """Let a program carry what is said of it, but for names that it uses itself."""
    vars(program).update({name: said for name, said in reports.items() if not uses_name(program, name)})


def all_predictors(program: dspy.Module) -> list[dspy.Predict]:
    """The frozen ones too, and those in lists within lists."""
    return [found for _, found in program.named_sub_modules(dspy.Predict) if isinstance(found, dspy.Predict)]


def _is_report(value: object) -> bool:
    """Whether it stands for itself alone, unlike None, which is everywhere."""
    return isinstance(value, list | dict) or hasattr(value, "__dict__")


def _check_apart(originals: Sequence[dspy.Predict], copies: Sequence[dspy.Predict]) -> None:
    ids = set(map(id, originals))
    if shared := next((predictor for predictor in copies if id(predictor) in ids), None):
        raise SettingsError(
            "The program's predictors must be held by modules, lists, tuples or dicts, so that they can be "
            f"copied; got {signature_of(shared).instructions!r} in something that cannot be."
        )
