"""Measure the cache modes on a checkpoint, and remember which one serves it best."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from dspy_diffusion_infill.engine import probe
from dspy_diffusion_infill.engine.cache import CachingPredictor
from dspy_diffusion_infill.engine.denoise import infill
from dspy_diffusion_infill.engine.likelihood import Target, estimate_nelbo
from dspy_diffusion_infill.engine.model import MaskPredictor, TextModel
from dspy_diffusion_infill.engine.reverse import Decoding
from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.prompts.canvas import CacheMode, Denoising

logger = logging.getLogger(__name__)

TOLERANCE = 0.02
"""Share by which the fillings of a mode may be less likely, per token, than those of mode *exact*."""
MODES: tuple[CacheMode, ...] = ("exact", "window", "context")
FILE = "infill_calibration.json"
USER_FOLDER = Path.home() / ".cache" / "dspy-diffusion-infill"
"""Where choices go if the checkpoint's own folder cannot be written."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One cache mode on one checkpoint."""

    mode: CacheMode
    seconds: float
    """To fill the windows of a short prompt."""
    nll: float
    """Of the fillings, scored without any cache: nats per token."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was measured, which mode was chosen, and where that is written; None for nowhere."""

    choice: CacheMode
    measured: tuple[Measured, ...]
    path: Path | None

    def __str__(self) -> str:
        rows = (f"{one.mode}: {one.seconds:.2f} s, {one.nll:.3f} nats per token" for one in self.measured)
        return f"cache mode {self.choice} ({'; '.join(rows)})"


def calibrate(model: TextModel) -> Calibration:
    """Choose the fastest cache mode whose fillings are about as likely as those of mode *exact*.

    Windows of a short prompt with few-shot examples are filled in each mode, at temperature 0; the fillings
    are scored by the low-variance estimator, without any cache. The choice is written beside the checkpoint,
    for this model, precision and kind of device; `Denoising(cache="auto")` takes it from then on.

    Raises:
        SettingsError: If the model has no other mode than *exact*.

    Example:
        >>> from dspy_diffusion_infill.engine.model import load
        >>> print(calibrate(load("GSAI-ML/LLaDA-8B-Instruct")))  # doctest: +SKIP
        cache mode window (exact: 21.34 s, 2.310 nats per token; window: 3.02 s, 2.318 nats per token; ...)
    """
    measured = measure(model)
    limit = (1 + TOLERANCE) * measured[0].nll
    best = min((one for one in measured if one.nll <= limit), key=lambda one: one.seconds)
    calibration = Calibration(best.mode, measured, _store(model, best.mode, measured))
    logger.info("%s runs in %s.", model.name, calibration)
    return calibration


def measure(model: TextModel) -> tuple[Measured, ...]:
    """Fill the windows of a short prompt in each mode, the exact one first; nothing is written.

    Raises:
        SettingsError: If the model has no other mode than *exact*.
    """
    if not isinstance(model, CachingPredictor):
        raise SettingsError(
            f"model must keep keys and values; {model.name} runs in cache mode 'exact' alone."
        )
    canvases, num_context = probe.canvases(model)
    _measure("exact", model, canvases[:1], num_context[:1])  # the first pass on a device is slow
    return tuple(_measure(mode, model, canvases, num_context) for mode in MODES)


def stored_choice(model: MaskPredictor) -> CacheMode | None:
    """The mode that `calibrate` chose for a model on this kind of device; None if it was never asked."""
    found = (_read(folder / FILE).get(_key(model)) for folder in _folders(model))
    choices = (entry.get("choice") for entry in found if isinstance(entry, dict))
    return next((choice for choice in choices if choice in MODES), None)


def _measure(
    mode: CacheMode, model: TextModel, canvases: Sequence[list[int]], num_context: Sequence[int]
) -> Measured:
    decoding = Decoding(denoising=Denoising(temperature=0.0, cache=mode))
    started = time.perf_counter()
    filled = infill(model, canvases, decoding=decoding, num_context=num_context)
    seconds = time.perf_counter() - started
    targets = [
        Target(one.ids, [at for at, token in enumerate(ids) if token == model.mask_token_id])
        for ids, (one,) in zip(canvases, filled, strict=True)
    ]
    estimates = estimate_nelbo(model, targets, num_samples=probe.NUM_TOKENS)
    num_tokens = sum(estimate.num_tokens for estimate in estimates)
    return Measured(mode, seconds, sum(estimate.nelbo for estimate in estimates) / num_tokens)


def _store(model: MaskPredictor, choice: CacheMode, measured: Sequence[Measured]) -> Path | None:
    entry = {"choice": choice, "measured": [asdict(one) for one in measured]}
    for folder in _folders(model):
        path = folder / FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_name(f"{FILE}.{os.getpid()}")
            unfinished.write_text(json.dumps({**_read(path), _key(model): entry}, indent=1))
            os.replace(unfinished, path)
            return path
        except OSError:  # a checkpoint that others own
            continue
    return None


def _read(path: Path) -> dict[str, Any]:
    """What was written; nothing, if there is none or it is damaged: it can be measured again."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _folders(model: MaskPredictor) -> Sequence[Path]:
    """Where a choice may be written; a model that was made in memory has no name that would last."""
    folder = model.folder if isinstance(model, CachingPredictor) else None
    return (folder, USER_FOLDER) if folder else ()


def _key(model: MaskPredictor) -> str:
    device = torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else model.device.type
    return f"{model.name} on {device}"
