"""Text that DSPy's agents write into instructions and rely on: tools, turns, how to submit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import dspy

from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.prompts.locks import Lock, LockSetting, locked_spans, locks_for, unlocked
from dspy_diffusion_infill.prompts.program import instructions_of, signature_of
from dspy_diffusion_infill.prompts.templates import Template
from dspy_diffusion_infill.prompts.windows import Masking

AGENTS = {"ReAct", "ReActV2", "CodeAct", "ProgramOfThought", "RLM"}
OPENINGS = ("You are an Agent.", "You are an intelligent agent.", "You are tasked with producing")
"""Where the protocol begins, in case the task before it was rewritten already."""


def program_locks(program: dspy.Module, setting: LockSetting) -> dict[str, list[Lock]]:
    """The locks of every predictor, by its name.

    Raises:
        SettingsError: If the setting names a predictor that the program does not have.
    """
    predictors, needed = dict(program.named_predictors()), protocols(program)
    unknown = sorted(set(setting) - set(predictors)) if isinstance(setting, Mapping) else []
    if unknown:
        raise SettingsError(f"lock must name predictors of the program, {list(predictors)}; got {unknown}.")
    return {
        name: locks_for(setting, name, signature_of(predictor).fields, needed.get(name, ()))
        for name, predictor in predictors.items()
    }


def own_locks(names: Iterable[str], setting: LockSetting) -> dict[str, list[Lock]]:
    """The user's own locks of every predictor, without those that are always there."""
    whole = setting if isinstance(setting, Mapping) else dict.fromkeys(names, setting)
    return {name: [] if locks in (None, "auto") else list(locks) for name, locks in whole.items()}


def rewritten_lock(before: dspy.Module, after: dspy.Module, setting: LockSetting) -> str | None:
    """A text that the user locked and another version of a program lacks; None if there is none."""
    texts, found = instructions_of(before), instructions_of(after)
    own = own_locks(texts, setting).items()
    lost = (unlocked(texts[name], found.get(name, ""), locks) for name, locks in own)
    return next((text for text in lost if text is not None), None)


def idle_locks(program: dspy.Module, setting: LockSetting) -> list[Lock]:
    """The user's own locks that lock nothing in the present instructions; they may be mistyped."""
    if setting is None or setting == "auto":
        return []
    texts = {name: signature_of(predictor).instructions for name, predictor in program.named_predictors()}
    own = own_locks(texts, setting)
    working = [lock for name, locks in own.items() for lock in locks if locked_spans(texts[name], [lock])]
    every = dict.fromkeys(lock for locks in own.values() for lock in locks)
    return [lock for lock in every if lock not in working]


def check_masking(masking: Masking, program: dspy.Module) -> None:
    """Check a template against a program.

    Raises:
        SettingsError: If it does not fit.
    """
    if isinstance(masking, Template):
        needed = protocols(program)
        masking.check({name: needed.get(name, []) for name, _ in program.named_predictors()})


def protocols(program: dspy.Module) -> dict[str, list[str]]:
    """The protocol text in the instructions of each predictor, by predictor name.

    It is everything but the task's own instructions, and all there is where these cannot be told apart.
    """
    names = {id(predictor): name for name, predictor in program.named_predictors()}
    found: dict[str, list[str]] = {}
    for _, module in program.named_sub_modules():
        if not AGENTS & {cls.__name__ for cls in type(module).__mro__}:
            continue
        signature = getattr(module, "signature", None)
        task = getattr(signature, "instructions", "")
        for _, predictor in module.named_sub_modules(dspy.Predict):
            if isinstance(predictor, dspy.Predict) and id(predictor) in names:
                found[names[id(predictor)]] = _protocol(signature_of(predictor).instructions, task)
    return found


def _protocol(text: str, task: str) -> list[str]:
    opening = min((start for mark in OPENINGS if (start := text.find(mark)) >= 0), default=None)
    if task and task in text:
        pieces = text.split(task, 1)
    elif opening is not None:
        pieces = [text[opening:]]
    else:
        pieces = [text]
    return [piece.strip() for piece in pieces if piece.strip()]
