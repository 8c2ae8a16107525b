"""What makes two runs the same run, so that one can go on from the other's scores."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import dspy

from dspy_diffusion_infill.prompts.canvas import Infiller
from dspy_diffusion_infill.prompts.program import signature_of
from dspy_diffusion_infill.prompts.render import active_adapter
from dspy_diffusion_infill.search.canonical import canonical, class_code, scalars
from dspy_diffusion_infill.search.metrics import Metric, name_of
from dspy_diffusion_infill.search.task import Task
from dspy_diffusion_infill.search.usage import lms_of
from dspy_diffusion_infill.traces import Trace

FREE = ("budget", "num_threads")
"""Settings that may change from one part of a run to the next: they move its end, or nothing at all."""
SECRET = ("key", "_token", "secret", "password", "headers")
"""Ends of the names of parameters that stay out of a fingerprint."""

NOT_OWN = ("dspy", "builtins", "abc", "typing")
"""Packages whose classes are the same in every program."""


def fingerprint(
    task: Task, *, metric: Metric, infiller: Infiller, settings: Mapping[str, Any]
) -> dict[str, str]:
    """Digests of all that a score or the search depends on, by aspect; nothing can be read back from them."""
    kept = {name: value for name, value in settings.items() if name.partition(".")[0] not in FREE}
    modules = [_module(module) for _, module in task.student.named_sub_modules()]
    aspects: dict[str, object] = {
        **kept,  # each by its name, which a refusal tells; what an object is, is told below
        "program": [modules, list(map(_predictor, task.student.named_predictors()))],
        "trainset": [dict(example) for example in task.trainset],
        "traces": list(map(_trace, task.traces)),
        "valset": [dict(example) for example in task.valset + task.holdout],
        "metric": metric.function,
        "LM": [[lm.model, open_parameters(lm)] for lm in lms_of(task.student)],
        "adapter": name_of(active_adapter()),
        "infiller": infiller.name,
    }
    return {aspect: digest(value) for aspect, value in aspects.items()}


def digest(value: object) -> str:
    """A short stand-in for data and code: equal ones have equal ones, in every process.

    Example:
        >>> digest({"a": 1}) == digest({"a": 1}) != digest({"a": 2})
        True
    """
    return hashlib.sha256(json.dumps(canonical(value), sort_keys=True).encode()).hexdigest()[:32]


def _module(module: object) -> list[object]:
    """A module's settings and its code, but for DSPy's; what predictors are is told elsewhere."""
    settings = {} if isinstance(module, dspy.Predict) else scalars(vars(module))
    classes = [cls for cls in type(module).__mro__ if cls.__module__.partition(".")[0] not in NOT_OWN]
    return [name_of(module), settings, *map(class_code, classes)]


def _predictor(named: tuple[str, dspy.Predict]) -> list[object]:
    name, predictor = named
    signature = signature_of(predictor)
    fields = {
        name: [str(field.annotation), field.json_schema_extra] for name, field in signature.fields.items()
    }
    return [name, signature.instructions, fields, [dict(demo) for demo in predictor.demos]]


def _trace(trace: Trace) -> list[object]:
    return [dict(trace.inputs), dict(trace.outputs), trace.score, trace.feedback, trace.predictor]


def open_parameters(lm: dspy.BaseLM) -> dict[str, object]:
    """An LM's parameters, but for what is secret."""
    return {name: value for name, value in lm.kwargs.items() if not name.endswith(SECRET)}
