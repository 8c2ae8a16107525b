"""Rewrite parts of a DSPy program's instructions with a masked diffusion LM; keep what measurably helps."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from dspy_diffusion_infill._version import __version__
from dspy_diffusion_infill.errors import MissingExtraError

if TYPE_CHECKING:
    from dspy_diffusion_infill.engine.lm import DiffusionLM
    from dspy_diffusion_infill.errors import Unscored
    from dspy_diffusion_infill.optimizer import DiffusionInfill
    from dspy_diffusion_infill.prompts.canvas import (
        Canvas,
        Denoising,
        Filling,
        Infiller,
        Masked,
        Message,
        Scorer,
    )
    from dspy_diffusion_infill.prompts.compact import CompactAdapter
    from dspy_diffusion_infill.prompts.guards import Guard
    from dspy_diffusion_infill.prompts.last_line import LastLineAdapter
    from dspy_diffusion_infill.prompts.templates import Template
    from dspy_diffusion_infill.prompts.windows import SlidingWindow
    from dspy_diffusion_infill.search.budget import Budget
    from dspy_diffusion_infill.search.edits import Edit
    from dspy_diffusion_infill.search.gepa import infill_proposer
    from dspy_diffusion_infill.search.progress import ShowProgress
    from dspy_diffusion_infill.search.pruning import prune
    from dspy_diffusion_infill.search.reverting import revert
    from dspy_diffusion_infill.search.selection import Selection
    from dspy_diffusion_infill.serving.client import RemoteInfiller
    from dspy_diffusion_infill.traces import Trace, read_traces

_HOMES = {
    "Budget": "search.budget",
    "Canvas": "prompts.canvas",
    "CompactAdapter": "prompts.compact",
    "Denoising": "prompts.canvas",
    "DiffusionInfill": "optimizer",
    "DiffusionLM": "engine.lm",
    "Edit": "search.edits",
    "Filling": "prompts.canvas",
    "Guard": "prompts.guards",
    "Infiller": "prompts.canvas",
    "LastLineAdapter": "prompts.last_line",
    "Masked": "prompts.canvas",
    "Message": "prompts.canvas",
    "RemoteInfiller": "serving.client",
    "Scorer": "prompts.canvas",
    "Selection": "search.selection",
    "ShowProgress": "search.progress",
    "SlidingWindow": "prompts.windows",
    "Template": "prompts.templates",
    "Trace": "traces",
    "Unscored": "errors",
    "infill_proposer": "search.gepa",
    "prune": "search.pruning",
    "read_traces": "traces",
    "revert": "search.reverting",
}

_EXTRAS = {
    "rich": "cli",
    **dict.fromkeys(("numpy", "safetensors", "tokenizers", "torch", "transformers"), "engine"),
}
"""What may be missing, and the extra that brings it."""

__all__ = [
    "Budget",
    "Canvas",
    "CompactAdapter",
    "Denoising",
    "DiffusionInfill",
    "DiffusionLM",
    "Edit",
    "Filling",
    "Guard",
    "Infiller",
    "LastLineAdapter",
    "Masked",
    "Message",
    "RemoteInfiller",
    "Scorer",
    "Selection",
    "ShowProgress",
    "SlidingWindow",
    "Template",
    "Trace",
    "Unscored",
    "__version__",
    "infill_proposer",
    "prune",
    "read_traces",
    "revert",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that none pays for the others."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = importlib.import_module(f"{__name__}.{_HOMES[name]}")
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRAS:
            raise
        raise MissingExtraError(name, _EXTRAS[missing]) from error
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
