"""What of an object's attributes makes it another one: plain data and code, no clients and no secrets."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any

import dspy

from dspy_diffusion_infill.prompts.own import own_classes, uses_name
from dspy_diffusion_infill.prompts.program import REPORTS
from dspy_diffusion_infill.search.canonical import SCALARS, class_code, closure, source
from dspy_diffusion_infill.search.metrics import name_of

SECRET = ("key", "_token", "secret", "password", "headers")
"""Ends of the names that stay out of a fingerprint."""
GATHERED = (
    *("history", "callbacks", "cache", "edits", *REPORTS),
    *("total_calls", "results_best", "results_latest", "prompt_model_total_calls"),
    *("mb_candidate_programs", "score", "simba_idx", "flag_compilation_error_occurred"),
)
"""What runs and optimizers leave in a program that does not speak of it itself."""


def described(thing: object) -> list[Any]:
    """An object's settings and its code, but for DSPy's; what predictors are is told elsewhere."""
    attributes = {} if isinstance(thing, dspy.Predict) else vars(thing)
    settings = {
        name: value
        for name, value in attributes.items()
        if not name.startswith("_") and (name not in GATHERED or uses_name(thing, name))
    }
    return [name_of(thing), plain_part(settings), *map(class_code, own_classes(thing))]


def plain_part(value: Any, within: tuple[int, ...] = ()) -> Any:
    """What of a value is data or code; None stands for all else.

    Args:
        value: Anything. Functions are their code, LMs their names; of a mapping, secrets are left out.
        within: Ids of what holds it, lest it holds itself.

    Example:
        >>> plain_part({"top": [1, object()], "api_key": "sk-1"})
        {'top': [1, None]}
    """
    if isinstance(value, SCALARS):
        return value
    if id(value) in within:
        return "..."
    within = (*within, id(value))
    if isinstance(value, Mapping):
        return {name: plain_part(item, within) for name, item in open_items(value).items()}
    if isinstance(value, list | tuple):
        return [plain_part(item, within) for item in value]
    if isinstance(value, set | frozenset) and all(isinstance(item, SCALARS) for item in value):
        return value
    return value.model if isinstance(value, dspy.BaseLM) else _code(value, within)


def open_items(values: Mapping[Any, Any]) -> dict[Any, Any]:
    """A mapping without what is secret."""
    return {name: value for name, value in values.items() if not str(name).endswith(SECRET)}


def _code(value: Any, within: tuple[int, ...]) -> Any:
    """What code does. Of a method no object, of a closure no clients: these change from run to run."""
    if isinstance(value, dspy.Tool):
        return [value.name, value.desc, *(plain_part(part, within) for part in (value.args, value.func))]
    if isinstance(value, functools.partial):
        return [plain_part(part, within) for part in (value.func, value.args, value.keywords)]
    if not inspect.isroutine(value):
        return None
    function = getattr(value, "__func__", value)
    defaults = [getattr(function, name, None) for name in ("__defaults__", "__kwdefaults__")]
    return [name_of(function), source(function), plain_part([*defaults, closure(function)], within)]
