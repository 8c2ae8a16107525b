"""What makes two runs the same run, so that one can go on from the other's scores."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterable, Mapping
from typing import Any

import dspy
from dspy.teleprompt import Teleprompter

from dspy_diffusion_infill.prompts.canvas import Infiller
from dspy_diffusion_infill.prompts.program import signature_of
from dspy_diffusion_infill.prompts.render import active_adapter
from dspy_diffusion_infill.search.attributes import described, open_items, plain_part
from dspy_diffusion_infill.search.canonical import SCALARS, canonical
from dspy_diffusion_infill.search.metrics import Metric, name_of
from dspy_diffusion_infill.search.task import Task
from dspy_diffusion_infill.search.usage import lms_of
from dspy_diffusion_infill.traces import Trace

FREE = ("budget", "num_threads")
"""Settings that may change from one part of a run to the next: they move its end, or nothing at all."""


def fingerprint(
    task: Task, *, metric: Metric, infiller: Infiller, settings: Mapping[str, Any]
) -> dict[str, str]:
    """Digests of all that a score or the search depends on, by aspect; nothing can be read back from them."""
    kept = {name: value for name, value in settings.items() if name.partition(".")[0] not in FREE}
    aspects: dict[str, object] = {
        **{name: _setting(value) for name, value in kept.items()},  # a refusal tells these names
        "program": _program(task.student),
        "trainset": _examples(task.trainset),
        "traces": list(map(_trace, task.traces)),
        "valset": _examples(task.valset + task.holdout),
        "metric": metric.function,
        "LM": [[lm.model, open_parameters(lm)] for lm in lms_of(task.student)],
        "adapter": described(active_adapter()),
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


def _setting(value: object) -> object:
    """A teacher is a program; a base is its own settings, but for lists, which may be what it writes."""
    if isinstance(value, dspy.Module):
        return _program(value)
    if not isinstance(value, Teleprompter):
        return value
    settled = (*SCALARS, dspy.BaseLM)
    found = {
        name: item
        for name, item in value.get_params().items()
        if isinstance(item, settled) or inspect.isroutine(item)
    }
    return [name_of(value), plain_part(found)]


def _program(program: dspy.Module) -> list[object]:
    """Its modules' settings and code, and what its predictors are, frozen ones too."""
    modules = list(program.named_sub_modules())
    predictors = [_predictor(name, found) for name, found in modules if isinstance(found, dspy.Predict)]
    return [[described(module) for _, module in modules], predictors]


def _predictor(name: str, predictor: dspy.Predict) -> list[object]:
    signature = signature_of(predictor)
    fields = {
        name: [str(field.annotation), field.json_schema_extra] for name, field in signature.fields.items()
    }
    demos = [dict(demo) for demo in predictor.demos]
    return [name, signature.instructions, fields, demos, plain_part(predictor.config)]


def _examples(examples: Iterable[dspy.Example]) -> list[object]:
    """What they hold, and which of it a program is given."""
    return [[dict(example), sorted(example.inputs().keys())] for example in examples]


def _trace(trace: Trace) -> list[object]:
    return [dict(trace.inputs), dict(trace.outputs), trace.score, trace.feedback, trace.predictor]


def open_parameters(lm: dspy.BaseLM) -> dict[str, object]:
    """An LM's parameters, but for what is secret."""
    return open_items(lm.kwargs)
