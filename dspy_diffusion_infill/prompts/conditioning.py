"""What a canvas is conditioned on: examples with their reference outputs, laid out as demos, and traces."""

from __future__ import annotations

import itertools
import logging
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import dspy

from dspy_diffusion_infill.errors import CanvasError
from dspy_diffusion_infill.prompts.canvas import Canvas, Infiller, Message
from dspy_diffusion_infill.prompts.render import Fields, is_complete, render_turns
from dspy_diffusion_infill.prompts.trace_turns import (
    CUTS,
    Redact,
    Turns,
    arranged,
    cut,
    redacted,
    trace_turns,
)
from dspy_diffusion_infill.traces import ConditionOn, Trace

logger = logging.getLogger(__name__)

Shown = TypeVar("Shown", Turns, Trace)


def needs_traces(program: dspy.Module, trainset: Iterable[Fields]) -> bool:
    """Whether some predictor has fields that no label gives, such as the steps inside a pipeline."""
    predictors = [predictor for _, predictor in program.named_predictors()]
    return not all(is_complete(predictor, example) for example in trainset for predictor in predictors)


class Conditioning:
    """Examples and traces for the canvases of every predictor, in a seeded order, a few at a time.

    An example whose labels fill all fields of a predictor is shown as it is. Where labels are missing, calls
    of the predictor from runs that scored well are shown instead; where there are none, the fields that
    exist. Traces are shown with what was said of them (`trace_turns`), failing and passing ones in turn. With
    "both", traces and examples take turns, a trace first.

    Source: prompt infilling shows the model one example with its reference response (arXiv:2604.03677, Sec.
    3.2); here one to many, in turn. Conditioning on traces: arXiv:2602.18449.

    Args:
        program: Whose predictors are to be shown. Not modified.
        trainset: Labelled examples. Not modified.
        calls: By predictor name, the fields of calls in runs that scored well.
        shots: Examples and traces a canvas, at most.
        seed: Of the order.
        condition_on: Which of them.
        max_score: At this score a trace is a passing one.
        redact: Takes out what must not reach the infiller; None takes out nothing.
    """

    def __init__(
        self,
        program: dspy.Module,
        trainset: Sequence[Fields],
        calls: Mapping[str, Sequence[Fields]],
        *,
        shots: int,
        seed: int,
        condition_on: ConditionOn = "examples",
        max_score: float = 1.0,
        redact: Redact | None = None,
    ) -> None:
        self._shots, self._seed, self._redact = shots, seed, redact
        self._condition_on, self._max_score = condition_on, max_score
        self._predictors = dict(program.named_predictors())
        self._turns: dict[str, list[Turns]] = {}
        self._warned = False
        for name, predictor in self._predictors.items():
            examples = [example for example in trainset if is_complete(predictor, example)]
            examples = examples or list(calls.get(name, ())) or list(trainset)
            turns = [turns for example in examples if (turns := render_turns(predictor, example))]
            random.Random(f"{seed}/{name}").shuffle(turns)
            self._turns[name] = turns

    def canvas(
        self,
        predictor: str,
        messages: tuple[Message, ...],
        visit: int,
        infiller: Infiller,
        traces: Sequence[Trace] = (),
    ) -> Canvas:
        """Put examples and traces beside masked messages, as many as fit.

        Args:
            predictor: Name of the predictor that the messages belong to.
            messages: With a masked part.
            visit: Counts the canvases of this predictor: the next one shows the next examples.
            infiller: Says how long a canvas is, and how long it may be.
            traces: Of this predictor, as far as it is conditioned on them.

        Raises:
            CanvasError: If the messages alone are too long.
        """
        shown = [redacted(turns, self._redact) for turns in self._shown(predictor, visit, traces)]
        fit_in = fit if self._condition_on == "examples" else fit_traces
        canvas, count = fit_in(predictor, messages, shown, infiller)
        self._report(count, len(shown), predictor, infiller)
        return canvas

    def references(self, predictor: str) -> list[Turns]:
        """What a predictor should answer: its labelled examples, or calls that went well, in order."""
        return [redacted(turns, self._redact) for turns in self._turns[predictor]]

    def _shown(self, predictor: str, visit: int, traces: Sequence[Trace]) -> list[Turns]:
        examples = self._turns[predictor] if self._condition_on != "traces" else []
        if self._condition_on == "examples":
            return _next(examples, visit, self._shots)
        order = arranged(traces, max_score=self._max_score, seed=f"{self._seed}/{predictor}/traces")
        own, chosen = self._predictors[predictor], _next(order, visit, self._shots)
        told = [trace_turns(own, trace, max_score=self._max_score) for trace in chosen]
        pairs = itertools.zip_longest(told, _next(examples, visit, self._shots))
        return [one for pair in pairs for one in pair if one][: self._shots]

    def _report(self, count: int, wanted: int, predictor: str, infiller: Infiller) -> None:
        if count < wanted and not self._warned:
            self._warned = True
            what = "examples and traces" if self._condition_on == "both" else self._condition_on
            logger.warning(
                "Only %d of %d %s fit beside the prompt of predictor %r in the %d tokens of %s.",
                count, wanted, what, predictor, infiller.context_length, infiller.name,
            )  # fmt: skip


def _next(shown: list[Shown], visit: int, shots: int) -> list[Shown]:
    """The next few, from the first again after the last."""
    shots = min(shots, len(shown))
    first = visit * shots % len(shown) if shown else 0
    return (shown[first:] + shown[:first])[:shots]


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


def fit_traces(
    predictor: str, messages: tuple[Message, ...], traces: Sequence[Turns], infiller: Infiller
) -> tuple[Canvas, int]:
    """As `fit`; but a trace too long to be shown whole is shown with the middle of its turns left out.

    If not even its ends fit, none is shown.

    Raises:
        CanvasError: If the messages alone are too long.
    """
    canvas, count = fit(predictor, messages, traces, infiller)
    for characters in CUTS if traces and not count else ():
        shorter = Canvas(messages, cut(traces[0], characters))
        if infiller.num_tokens(shorter) <= infiller.context_length:
            return shorter, 1
    return canvas, count
