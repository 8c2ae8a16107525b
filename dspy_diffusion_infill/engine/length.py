"""How many mask tokens a masked part should get: the number that the model is surest of at its first step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import linear_regression

from dspy_diffusion_infill.prompts.canvas import Canvas, Masked

FACTORS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
"""Lengths that are tried, in units of the one that was asked for."""
MAX_LENGTHS = len(FACTORS)
"""Lengths of a range that are tried."""


def with_best_lengths(
    canvas: Canvas,
    confidences: Callable[[Sequence[Canvas]], Sequence[float]],
    room: int,
    *,
    everywhere: bool = True,
) -> Canvas:
    """Give each masked part, from the first to the last, the length that the model is surest of.

    Args:
        canvas: As it was asked for.
        confidences: Of each canvas, the mean log probability of the likeliest tokens at its first step.
        room: Tokens that the canvas may grow by.
        everywhere: Whether parts that ask for one length get one near it; else only ranges are looked into.
    """
    for part, masked in enumerate(_masked(canvas)):
        if masked.most is None and not everywhere:
            continue
        asked = masked.num_tokens
        tried = lengths_to_try(asked) if masked.most is None else lengths_within(asked, masked.most)
        lengths = [length for length in tried if length <= asked + room]
        found = confidences([with_length(canvas, part, length) for length in lengths])
        best = best_length(dict(zip(lengths, found, strict=True)), asked, most=masked.most)
        canvas, room = with_length(canvas, part, best), room + asked - best
    return canvas


def lengths_to_try(num_tokens: int) -> list[int]:
    """Numbers of mask tokens around the one that was asked for; four at least, for a line to be fitted.

    Example:
        >>> lengths_to_try(8)
        [2, 4, 6, 8, 10, 12, 16]
    """
    return sorted({max(1, round(max(num_tokens, 2) * factor)) for factor in FACTORS})


def most_masks(part: Masked, *, adaptive: bool) -> int:
    """Mask tokens that a part may be given.

    Example:
        >>> most_masks(Masked(8), adaptive=True), most_masks(Masked(8), adaptive=False)
        (16, 8)
    """
    asked = part.most or part.num_tokens
    return max(lengths_to_try(asked)) if adaptive and part.most is None else asked


def lengths_within(least: int, most: int) -> list[int]:
    """Lengths spread evenly over a range, both ends included.

    A range of two has the next one too: a line is fitted to three.

    Example:
        >>> lengths_within(4, 6), lengths_within(2, 26), lengths_within(4, 5)
        ([4, 5, 6], [2, 6, 10, 14, 18, 22, 26], [4, 5, 6])
    """
    if most == least + 1:
        return [least, most, most + 1]
    steps = min(MAX_LENGTHS - 1, most - least)
    return [least + round(step * (most - least) / steps) for step in range(steps + 1)] if steps else [least]


def best_length(confidence: Mapping[int, float], asked: int, most: int | None = None) -> int:
    """The length whose confidence stands out most above what its length alone explains.

    Confidence falls as there is more to guess; a straight line in the logarithm of the length, fitted to this
    canvas, says by how much.

    Source: LR-DLLM (arXiv:2602.07546), stage I. Differs: confidence is the mean log probability of the
    likeliest tokens, not the mean negative entropy; lengths lie around the one that was asked for.

    Args:
        confidence: By length; in nats per token.
        asked: The length to keep where fewer than three were tried, which any line fits.
        most: The longest that may be chosen; None for any.

    Example:
        >>> best_length({2: -1.0, 4: -2.0, 8: -2.0, 16: -4.0}, asked=4)
        8
    """
    if len(confidence) < 3:
        return asked
    logs, values = [math.log(length) for length in confidence], list(confidence.values())
    slope, level = linear_regression(logs, values)
    allowed = [length for length in confidence if most is None or length <= most]
    return max(allowed, key=lambda length: confidence[length] - level - slope * math.log(length))


def masked_parts(canvas: Canvas) -> list[int]:
    """Mask tokens of each masked part, in reading order."""
    return [part.num_tokens for part in _masked(canvas)]


def has_range(canvas: Canvas) -> bool:
    """Whether a masked part leaves its length open."""
    return any(part.most is not None for part in _masked(canvas))


def _masked(canvas: Canvas) -> list[Masked]:
    parts = (part for message in canvas.messages for part in message.parts)
    return [part for part in parts if isinstance(part, Masked)]


def with_length(canvas: Canvas, part: int, num_tokens: int) -> Canvas:
    """The canvas with another number of mask tokens in one masked part, counted in reading order."""
    lengths = iter([*_masked(canvas)[:part], Masked(num_tokens), *_masked(canvas)[part + 1 :]])
    return replace(
        canvas,
        messages=tuple(
            replace(
                message,
                parts=tuple(next(lengths) if isinstance(piece, Masked) else piece for piece in message.parts),
            )
            for message in canvas.messages
        ),
    )
