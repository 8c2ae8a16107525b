"""What a canvas is conditioned on: examples with their reference outputs, as the adapter lays out demos."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Mapping, Sequence

import dspy

from dspy_diffusion_infill.errors import CanvasError
from dspy_diffusion_infill.prompts.canvas import Canvas, Infiller, Message
from dspy_diffusion_infill.prompts.render import Fields, is_complete, render_turns

logger = logging.getLogger(__name__)

Turns = tuple[Message, ...]


def needs_traces(program: dspy.Module, trainset: Iterable[Fields]) -> bool:
    """Whether some predictor has fields that no label gives, such as the steps inside a pipeline."""
    predictors = [predictor for _, predictor in program.named_predictors()]
    return not all(is_complete(predictor, example) for example in trainset for predictor in predictors)


class Conditioning:
    """Examples for the canvases of every predictor, in a seeded order, a few at a time.

    An example whose labels fill all fields of a predictor is shown as it is. Where labels are missing, calls
    of the predictor from runs that scored well are shown instead; where there are none, the fields that
    exist.

    Source: prompt infilling shows the model one example with its reference response (arXiv:2604.03677, Sec.
    3.2); here one to many, in turn.

    Args:
        program: Whose predictors are to be shown. Not modified.
        trainset: Labelled examples. Not modified.
        calls: By predictor name, the fields of calls in runs that scored well.
        shots: Examples a canvas, at most.
        seed: Of the order.
    """

    def __init__(
        self,
        program: dspy.Module,
        trainset: Sequence[Fields],
        calls: Mapping[str, Sequence[Fields]],
        *,
        shots: int,
        seed: int,
    ) -> None:
        self._shots = shots
        self._turns: dict[str, list[Turns]] = {}
        self._warned = False
        for name, predictor in program.named_predictors():
            examples = [example for example in trainset if is_complete(predictor, example)]
            examples = examples or list(calls.get(name, ())) or list(trainset)
            turns = [turns for example in examples if (turns := render_turns(predictor, example))]
            random.Random(f"{seed}/{name}").shuffle(turns)
            self._turns[name] = turns

    def canvas(self, predictor: str, messages: tuple[Message, ...], visit: int, infiller: Infiller) -> Canvas:
        """Put examples beside masked messages, as many as fit.

        Args:
            predictor: Name of the predictor that the messages belong to.
            messages: With a masked part.
            visit: Counts the canvases of this predictor: the next one shows the next examples.
            infiller: Says how long a canvas is, and how long it may be.

        Raises:
            CanvasError: If the messages alone are too long.
        """
        turns = self._turns[predictor]
        shots = min(self._shots, len(turns))
        first = visit * shots % len(turns) if turns else 0
        shown = (turns[first:] + turns[:first])[:shots]
        canvas, count = fit(predictor, messages, shown, infiller)
        self._report(count, len(shown), predictor, infiller)
        return canvas

    def _report(self, count: int, wanted: int, predictor: str, infiller: Infiller) -> None:
        if count < wanted and not self._warned:
            self._warned = True
            logger.warning(
                "Only %d of %d examples fit beside the prompt of predictor %r in the %d tokens of %s.",
                count, wanted, predictor, infiller.context_length, infiller.name,
            )  # fmt: skip


def fit(
    predictor: str, messages: tuple[Message, ...], examples: Sequence[Turns], infiller: Infiller
) -> tuple[Canvas, int]:
    """Put as many examples beside masked messages as the infiller can read; and say how many, the first ones.

    Raises:
        CanvasError: If the messages alone are too long.
    """
    for count in range(len(examples), -1, -1):
        canvas = Canvas(messages, tuple(message for example in examples[:count] for message in example))
        if infiller.num_tokens(canvas) <= infiller.context_length:
            return canvas, count
    raise CanvasError(
        f"The prompt of predictor {predictor!r} must have at most {infiller.context_length} tokens, the "
        f"context length of {infiller.name}; it has {infiller.num_tokens(Canvas(messages))} without any "
        "example. Use an infiller with a longer context, or an adapter with shorter prompts (CompactAdapter)."
    )
