"""Which fillings are worth program runs: those with which the infiller itself expects the reference outputs.

Pure: no dspy, no torch.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Sequence
from statistics import fmean
from typing import Protocol

from dspy_diffusion_infill.prompts.canvas import Canvas, Infiller, Masked, Message, Scorer

MAX_EXAMPLES = 16
"""On which prompts are screened: each costs a pass of the model a filling, far less than the filling did."""

Turns = tuple[Message, ...]


class ScoringInfiller(Infiller, Scorer, Protocol):
    """An infiller that can screen."""


class Screen:
    """Lets the best share of all that it has seen so far through, whichever windows they are of.

    Args:
        share: Above 0, at most 1.

    Example:
        >>> screen = Screen(0.5)
        >>> screen.sift([0.1, 0.4, 0.2, 0.3]), screen.sift([0.0, 0.5])
        ([False, True, False, True], [False, True])
    """

    def __init__(self, share: float) -> None:
        self._share, self._seen = share, list[float]()

    def sift(self, worths: Sequence[float]) -> list[bool]:
        """Say of each filling of a batch whether it stays.

        Args:
            worths: How much likelier each makes the reference outputs.
        """
        for worth in worths:
            insort(self._seen, worth)
        if not worths:
            return []
        bar = self._seen[-math.ceil(self._share * len(self._seen))]
        return [worth >= bar for worth in worths]


def expectations(
    prompts: Sequence[Turns], examples: Sequence[Turns], infiller: ScoringInfiller
) -> list[float] | None:
    """How likely each prompt makes a token of the reference outputs, 0 to 1; the mean over the examples.

    Within an example tokens have their geometric mean. Over examples it is not the mean log-likelihood that
    ranks prompts as a metric does (docs/log.md): one example that a prompt is very wrong about would outweigh
    all others.

    Args:
        prompts: Messages without masks.
        examples: Each a turn with the inputs and one with the reference outputs.
        infiller: Says how likely. Examples that do not fit into its context beside every prompt are left out.

    Returns:
        One number a prompt; None if no example fits.
    """
    asked = [
        [(_question(prompt, example), example[-1].parts) for prompt in prompts]
        for example in examples[:MAX_EXAMPLES]
    ]
    fitting = [row for row in asked if all(_fits(canvas, texts, infiller) for canvas, texts in row)]
    if not fitting:
        return None
    flat = [each for row in fitting for each in row]
    found = infiller.nll_per_token([canvas for canvas, _ in flat], [_texts(texts) for _, texts in flat])
    likely = [math.exp(-nll) for nll in found]
    return [fmean(likely[n :: len(prompts)]) for n in range(len(prompts))]


def _question(prompt: Turns, example: Turns) -> Canvas:
    *given, answer = example
    return Canvas((*prompt, *given, Message(answer.role, (Masked(1),))))


def _texts(parts: Sequence[str | Masked]) -> list[str]:
    return ["".join(part for part in parts if isinstance(part, str))]


def _fits(canvas: Canvas, texts: Sequence[str | Masked], infiller: Infiller) -> bool:
    length = infiller.num_tokens(canvas) - 1 + len(infiller.offsets(_texts(texts)[0]))
    return length <= infiller.context_length
