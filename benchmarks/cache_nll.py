"""What the faster cache modes cost in likelihood, on the embedded model."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from statistics import mean, stdev
from typing import Any

from benchmarks.infilling import FAST, WINDOW, canvases, filled
from dspy_diffusion_infill.demo import written_reviews
from dspy_diffusion_infill.engine.likelihood import Target, estimate_nelbo
from dspy_diffusion_infill.engine.model import TextModel, load
from dspy_diffusion_infill.engine.vocabulary import Vocabulary
from dspy_diffusion_infill.prompts.canvas import CacheMode, Canvas, Message
from dspy_diffusion_infill.training.schemes import WORDINGS, Instruction, held_out_schemes

SHOTS = 16


def rating_canvases(vocabulary: Vocabulary, num_instructions: int) -> list[Canvas]:
    """Windows of instructions to rate reviews by held-out schemes, beside sixteen examples each."""
    random = Random(0)
    reviews = written_reviews("dev")
    rows = []
    schemes = [scheme for scheme in held_out_schemes() if len(scheme.labels) == 5]
    for number in range(num_instructions):
        scheme = schemes[number % len(schemes)]
        shots = [
            turn
            for text, grade in random.sample(reviews, SHOTS)
            for turn in (Message.text("user", text), Message.text("assistant", scheme.label(grade)))
        ]
        text = Instruction(WORDINGS[number % len(WORDINGS)], scheme).text
        rows += canvases(vocabulary, text, shots)
    return rows


def likelihoods(model: TextModel, rows: Sequence[Canvas], mode: CacheMode) -> list[float]:
    """Nats per filled token of each canvas's filling, scored by full passes."""
    mask = model.mask_token_id
    masked = [
        [
            at
            for at, token in enumerate(model.vocabulary.lay_out((*row.messages, *row.context)).ids)
            if token == mask
        ]
        for row in rows
    ]
    targets = [Target(ids, places) for ids, places in zip(filled(model, rows, mode), masked, strict=True)]
    # as many samples as masks: every count of masks is drawn once
    return [
        estimate.nelbo / estimate.num_tokens
        for estimate in estimate_nelbo(model, targets, num_samples=WINDOW)
    ]


def measure_likelihood(num_instructions: int) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """What each mode's fillings lose, on the embedded model."""
    model = load("embedded", device="cpu", dtype="float32")
    rows = rating_canvases(model.vocabulary, num_instructions)
    exact = likelihoods(model, rows, "exact")
    table = [{"mode": "exact", "windows": len(rows), "nll": mean(exact)}]
    bars = {}
    for mode in FAST:
        each = likelihoods(model, rows, mode)
        excess = [one - other for one, other in zip(each, exact, strict=True)]
        error = stdev(excess) / len(excess) ** 0.5
        bars[f"{mode}_nll_excess"] = mean(excess)
        table.append({"mode": mode, "nll": mean(each), "excess": mean(excess), "standard_error": error})
    return table, bars
