"""Try a checkpoint out: whether it is what the engine takes it for, and whether it can infill prompts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dspy_diffusion_infill.engine import probe
from dspy_diffusion_infill.engine.cache import CachingPredictor, FullPasses
from dspy_diffusion_infill.engine.calibrate import TOLERANCE, measure
from dspy_diffusion_infill.engine.infiller import DiffusionInfiller
from dspy_diffusion_infill.engine.model import MaskPredictor, TextModel
from dspy_diffusion_infill.engine.rows import pad
from dspy_diffusion_infill.engine.vocabulary import Vocabulary
from dspy_diffusion_infill.engine.window import WindowPasses
from dspy_diffusion_infill.prompts.canvas import Canvas, Denoising, Masked, Message

AGREEMENT = 0.95
"""Share of places whose likeliest token must be the same where logits may differ by rounding alone."""
MIN_CHANGE = 1e-3
"""Of logits, as a share of their spread, that is no rounding."""
MAX_STOP_SHARE = 0.5
"""Share of end-of-text tokens from which on a model is taken for one that was never taught prompts."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was tried."""

    name: str
    verdict: Literal["fine", "doubtful", "failed"]
    """`doubtful`: the engine runs it, but do not expect much of it."""
    detail: str


def verify(model: TextModel) -> list[Check]:
    """Try a model on a short prompt with examples. Takes some dozens of forward passes; writes nothing.

    Example:
        >>> from dspy_diffusion_infill.engine.model import load
        >>> {check.verdict for check in verify(load("embedded"))}  # doctest: +SKIP
        {'fine'}
    """
    canvases, _ = probe.canvases(model)
    return [
        check_ids(model),
        check_shapes(model, canvases[0]),
        check_rows(model, canvases),
        check_sides(model, canvases[0]),
        check_caches(model, canvases),
        check_stops(model),
        sample(model),
    ]


def check_ids(model: TextModel) -> Check:
    """Text comes back from ids, and the mask token is no text."""
    vocabulary, text = model.vocabulary, probe.INSTRUCTIONS
    if model.mask_token_id not in model.banned_ids:
        return Check("ids", "failed", f"the mask token, id {model.mask_token_id}, can be written as text")
    detail = f"{vocabulary.num_ids} ids, {len(model.banned_ids)} of them no text, mask {model.mask_token_id}"
    if not _comes_back(vocabulary, text):
        return Check("ids", "doubtful", f"{detail}; text does not come back from ids as it was")
    return Check("ids", "fine", detail)


def _comes_back(vocabulary: Vocabulary, text: str) -> bool:
    """As a whole, and from its middle on."""
    ids = vocabulary.encode(text)
    if vocabulary.decode(ids) != text:
        return False
    middle = len(ids) // 2
    rest = text[vocabulary.offsets(text)[middle][0] :]
    return vocabulary.decode(ids[middle:], behind_text=True) == rest


def check_shapes(model: TextModel, canvas: Sequence[int]) -> Check:
    """A finite number for each id at each masked place."""
    logits = _logits(model, [canvas])
    wanted = (list(canvas).count(model.mask_token_id), model.vocabulary.num_ids)
    if tuple(logits.shape) != wanted:
        return Check(
            "shapes", "failed", f"logits must be {wanted} for these masks; got {tuple(logits.shape)}"
        )
    if not logits.isfinite().all():
        return Check("shapes", "failed", "logits must be finite; some are not")
    return Check("shapes", "fine", f"logits {wanted[0]} by {wanted[1]}, all finite")


def check_rows(model: TextModel, canvases: Sequence[Sequence[int]]) -> Check:
    """A row does not depend on the rows beside it, nor on padding."""
    shorter = [ids[: len(ids) - number] for number, ids in enumerate(canvases)]
    alone = torch.cat([_logits(model, [ids]) for ids in shorter])
    return _agreeing("rows", alone, _logits(model, shorter), "alone and in a padded batch")


def check_sides(model: TextModel, canvas: Sequence[int]) -> Check:
    """What stands behind a mask changes what is written there; in a causal model it does not."""
    last = len(canvas) - list(canvas)[::-1].index(model.mask_token_id)
    turned = [*canvas[:last], *reversed(canvas[last:])]
    logits = _logits(model, [canvas])
    change = float((logits - _logits(model, [turned])).abs().max() / logits.std())
    detail = f"logits change by up to {change:.2g} of their spread with the text behind the mask"
    return Check("both sides", "fine" if change > MIN_CHANGE else "failed", detail)


def check_caches(model: TextModel, canvases: Sequence[Sequence[int]]) -> Check:
    """Reused keys and values give what full passes give, and fillings about as likely."""
    name = "cache modes"
    if not isinstance(model, CachingPredictor):
        return Check(name, "fine", "exact alone: keys and values cannot be kept")
    ids, given = pad(canvases, model.device)
    wanted, rows = (ids == model.mask_token_id) & given, range(len(canvases))
    with torch.inference_mode():
        cached, full = (
            passes.logits(ids, given, wanted, rows) for passes in (WindowPasses(model), FullPasses(model))
        )
    parity = _agreeing(name, full, cached, "with and without kept keys and values")
    measured = measure(model)
    seen = ", ".join(f"{one.mode} {one.nll:.3f} in {one.seconds:.2f} s" for one in measured)
    detail = f"{parity.detail}; nats per token of fillings: {seen}"
    exact, window, _ = measured
    worse = window.nll > (1 + TOLERANCE) * exact.nll
    return Check(name, "doubtful" if worse and parity.verdict == "fine" else parity.verdict, detail)


def check_stops(model: TextModel) -> Check:
    """How often end-of-text is likeliest where the whole instructions are masked, and nothing is banned.

    A model that was only ever taught responses ends its text there: tell-tale of one that cannot infill.
    """
    num_tokens = len(model.vocabulary.encode(probe.INSTRUCTIONS))
    masked = Message("system", (Masked(num_tokens),))
    ids = model.vocabulary.lay_out([masked, *probe.fitting(model, [masked])]).ids
    likeliest = _logits(model, [ids]).argmax(1).tolist()
    share = sum(token in model.vocabulary.stop_ids for token in likeliest) / len(likeliest)
    detail = f"{share:.0%} of the likeliest tokens where instructions are masked"
    if share > MAX_STOP_SHARE:
        hint = "a model that was never taught to infill prompts: train it with diffusion-infill train"
        return Check("end of text", "doubtful", f"{detail}; {hint}")
    return Check("end of text", "fine", detail)


def sample(model: TextModel) -> Check:
    """The middle of the instructions, as it reads and as the model infills it."""
    text, offsets = probe.INSTRUCTIONS, model.vocabulary.offsets(probe.INSTRUCTIONS)
    chosen = offsets[len(offsets) // 2 :][: probe.NUM_TOKENS]
    start, end = chosen[0][0], chosen[-1][1]
    message = Message("system", (text[:start], Masked(len(chosen)), text[end:]))
    canvas = Canvas((message,), tuple(probe.fitting(model, [message])))
    started = time.perf_counter()
    infiller = DiffusionInfiller(model, Denoising(temperature=0.0))
    ((filling,),) = infiller.infill([canvas], num_candidates=1, seed=0)
    seconds = time.perf_counter() - started
    detail = f"{filling.texts[0]!r} where the text has {text[start:end]!r}, in {seconds:.2f} s"
    return Check("sample infill", "fine", detail)


@torch.inference_mode()
def _logits(model: MaskPredictor, rows: Sequence[Sequence[int]]) -> Tensor:
    ids, given = pad(rows, model.device)
    return model.logits(ids, given, (ids == model.mask_token_id) & given)


def _agreeing(name: str, one: Tensor, other: Tensor, how: str) -> Check:
    share = float((one.argmax(1) == other.argmax(1)).float().mean())
    change = float((one - other).abs().max())
    detail = f"{share:.0%} of the likeliest tokens are the same {how} (logits differ by up to {change:.2g})"
    return Check(name, "fine" if share >= AGREEMENT else "failed", detail)
