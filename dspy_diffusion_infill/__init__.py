"""Rewrite parts of a DSPy program's instructions with a masked diffusion LM; keep what measurably helps."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from dspy_diffusion_infill._version import __version__
from dspy_diffusion_infill.errors import MissingExtraError

if TYPE_CHECKING:
    from dspy_diffusion_infill.engine.lm import DiffusionLM
    from dspy_diffusion_infill.errors import Unscored
    from dspy_diffusion_infill.judges.align import align_judge
    from dspy_diffusion_infill.judges.metrics import JudgeMetric
    from dspy_diffusion_infill.judges.prometheus import Judge
    from dspy_diffusion_infill.judges.vllm import serve_judge
    from dspy_diffusion_infill.optimizer import DiffusionInfill
    from dspy_diffusion_infill.prompts.canvas import Canvas, Denoising, Filling, Infiller, Masked, Message
    from dspy_diffusion_infill.prompts.compact import CompactAdapter
    from dspy_diffusion_infill.prompts.guards import Guard
    from dspy_diffusion_infill.prompts.last_line import LastLineAdapter
    from dspy_diffusion_infill.prompts.templates import Template
    from dspy_diffusion_infill.prompts.windows import SlidingWindow
    from dspy_diffusion_infill.search.budget import Budget
    from dspy_diffusion_infill.search.edits import Edit
    from dspy_diffusion_infill.search.gepa import infill_proposer
    from dspy_diffusion_infill.search.pruning import prune
    from dspy_diffusion_infill.search.reverting import revert
    from dspy_diffusion_infill.search.selection import Selection
    from dspy_diffusion_infill.serving.client import RemoteInfiller

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
    "Judge": "judges.prometheus",
    "JudgeMetric": "judges.metrics",
    "LastLineAdapter": "prompts.last_line",
    "Masked": "prompts.canvas",
    "Message": "prompts.canvas",
    "RemoteInfiller": "serving.client",
    "Selection": "search.selection",
    "SlidingWindow": "prompts.windows",
    "Template": "prompts.templates",
    "Unscored": "errors",
    "align_judge": "judges.align",
    "infill_proposer": "search.gepa",
    "prune": "search.pruning",
    "revert": "search.reverting",
    "serve_judge": "judges.vllm",
}

_ENGINE = {"numpy", "safetensors", "tokenizers", "torch", "transformers"}

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
    "Judge",
    "JudgeMetric",
    "LastLineAdapter",
    "Masked",
    "Message",
    "RemoteInfiller",
    "Selection",
    "SlidingWindow",
    "Template",
    "Unscored",
    "__version__",
    "align_judge",
    "infill_proposer",
    "prune",
    "revert",
    "serve_judge",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that none pays for the others."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = importlib.import_module(f"{__name__}.{_HOMES[name]}")
    except ModuleNotFoundError as error:
        if error.name not in _ENGINE:
            raise
        raise MissingExtraError(name, "engine") from error
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
