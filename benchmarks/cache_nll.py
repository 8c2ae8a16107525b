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


def likelihoods(
    model: TextModel, rows: Sequence[Canvas], mode: CacheMode, known: dict[Target, float]
) -> list[float]:
    """Nats per filled token of each canvas's filling, scored by full passes.

    Args:
        model: Fills, and scores.
        rows: The canvases.
        mode: Of filling.
        known: Scores of fillings; takes the new ones in, so that none is scored twice.
    """
    layouts = [model.vocabulary.lay_out((*row.messages, *row.context)).ids for row in rows]
    masked = [tuple(at for at, token in enumerate(ids) if token == model.mask_token_id) for ids in layouts]
    targets = [
        Target(tuple(ids), places) for ids, places in zip(filled(model, rows, mode), masked, strict=True)
    ]
    new = [target for target in dict.fromkeys(targets) if target not in known]
    # as many samples as masks: every count of masks is drawn once
    estimates = estimate_nelbo(model, new, num_samples=WINDOW)
    known |= {
        target: estimate.nelbo / estimate.num_tokens for target, estimate in zip(new, estimates, strict=True)
    }
    return [known[target] for target in targets]


def measure_likelihood(num_instructions: int) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """What each mode's fillings lose, on the embedded model."""
    model = load("embedded", device="cpu", dtype="float32")
    rows = rating_canvases(model.vocabulary, num_instructions)
    known: dict[Target, float] = {}
    exact = likelihoods(model, rows, "exact", known)
    table = [{"mode": "exact", "windows": len(rows), "nll": mean(exact)}]
    bars = {}
    for mode in FAST:
        each = likelihoods(model, rows, mode, known)
        excess = [one - other for one, other in zip(each, exact, strict=True)]
        error = stdev(excess) / len(excess) ** 0.5
        bars[f"{mode}_nll_excess"] = mean(excess)
        table.append({"mode": mode, "nll": mean(each), "excess": mean(excess), "standard_error": error})
    return table, bars
