"""Infilling as the step by which GEPA changes an instruction; no reflection LM is needed."""

from __future__ import annotations

import functools
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import dspy

from dspy_diffusion_infill.prompts.candidates import propose
from dspy_diffusion_infill.prompts.canvas import Canvas, Denoising, Infiller, Message
from dspy_diffusion_infill.prompts.conditioning import fit
from dspy_diffusion_infill.prompts.guards import Guard, word_grams
from dspy_diffusion_infill.prompts.locks import LockSetting, check_locks, locked_spans
from dspy_diffusion_infill.prompts.program import instructions_of
from dspy_diffusion_infill.prompts.protocols import check_masking, program_locks
from dspy_diffusion_infill.prompts.render import render_turns, render_window
from dspy_diffusion_infill.prompts.templates import Template
from dspy_diffusion_infill.prompts.windows import SlidingWindow, Window
from dspy_diffusion_infill.search import failures
from dspy_diffusion_infill.serving.connect import connect

Record = Mapping[str, Any]
"""What GEPA says of one run of a predictor: "Inputs" and "Generated Outputs" by field, and "Feedback"."""


def infill_proposer(
    program: dspy.Module,
    infiller: str | os.PathLike[str] | Infiller | None = None,
    *,
    masking: SlidingWindow | Template = SlidingWindow(),  # noqa: B008  (frozen, as the one below)
    denoising: Denoising = Denoising(),  # noqa: B008
    lock: LockSetting = "auto",
    guard: Literal["auto"] | Guard | None = "auto",
    seed: int = 0,
) -> InfillProposer:
    """Make what GEPA takes as its `instruction_proposer`.

    GEPA's search over a Pareto front stays; each change it tries is one window of an instruction, filled in
    sight of the runs that GEPA reflects on and of the feedback they got.

    Args:
        program: The student, whose prompts are rendered. Not modified.
        infiller: As for `DiffusionInfill`, and so are the settings below.
        masking: Which windows there are; one is drawn for each change.
        denoising: How a window is filled; the likeliest filling that the guard lets in is proposed.
        lock: Text that is never rewritten.
        guard: Text that is never let in, e.g. words copied from a run.
        seed: Of windows and fillings.

    Raises:
        SettingsError: If a setting breaks its rule.
        InfillerUnavailableError: If no infiller answers.

    Example:
        >>> proposer = infill_proposer(program, "embedded")  # doctest: +SKIP
        >>> gepa = dspy.GEPA(metric, auto="light", instruction_proposer=proposer)  # doctest: +SKIP
    """
    check_locks(lock)
    check_masking(masking, program)
    guard = Guard() if isinstance(guard, str) else guard
    return InfillProposer(program, connect(infiller, denoising), masking, denoising, lock, guard, seed)


class InfillProposer:
    """Rewrites one window of each instruction it is given; made by `infill_proposer`."""

    def __init__(
        self,
        program: dspy.Module,
        infiller: Infiller,
        masking: SlidingWindow | Template,
        denoising: Denoising,
        lock: LockSetting,
        guard: Guard | None,
        seed: int,
    ) -> None:
        self._predictors = dict(program.named_predictors())
        self._infiller, self._num_candidates, self._seed = infiller, denoising.num_candidates, seed
        self._locks, self._guard = program_locks(program, lock), guard
        self._firsts = instructions_of(program)
        self._cutters = {name: masking.cutter(name, first) for name, first in self._firsts.items()}
        self._visits: Counter[str] = Counter()

    def __call__(
        self,
        candidate: Mapping[str, str],
        reflective_dataset: Mapping[str, Sequence[Record]],
        components_to_update: Sequence[str],
    ) -> dict[str, str]:
        """New instructions for some predictors; the old ones where nothing can or may be filled in.

        Args:
            candidate: Instructions by predictor. Not modified.
            reflective_dataset: Runs by predictor.
            components_to_update: Names of predictors.
        """
        return {
            name: self._rewrite(name, candidate, reflective_dataset.get(name, ()))
            for name in components_to_update
        }

    def _rewrite(self, name: str, candidate: Mapping[str, str], records: Sequence[Record]) -> str:
        draw = random.Random(f"{self._seed}/{name}/{self._visits[name]}")
        self._visits[name] += 1
        text = candidate[name]
        locked = locked_spans(text, self._locks[name])
        windows = self._cutters[name](text, self._infiller.offsets(text), locked)
        if not windows:
            return text
        window = draw.choice(windows)
        infill = functools.partial(
            self._infiller.infill,
            [self._canvas(name, text, window, records)],
            num_candidates=self._num_candidates,
            seed=draw.getrandbits(31),
        )
        (fillings,) = failures.retry(infill, failures.PAUSES, time.sleep)
        candidates, _ = propose(candidate, name, window, fillings, self._guarded(name, window, records))
        return candidates[0][name] if candidates else text

    def _canvas(self, name: str, text: str, window: Window, records: Sequence[Record]) -> Canvas:
        predictor = self._predictors[name]
        messages = render_window(predictor, text, window)
        canvas, _ = fit(name, messages, [_turns(predictor, record) for record in records], self._infiller)
        return canvas

    def _guarded(self, name: str, window: Window, records: Sequence[Record]) -> Callable[[str], str | None]:
        if (guard := self._guard) is None:
            return lambda text: None
        first = "".join(window.around) or self._firsts[name]
        texts = (str(value) for record in records for value in _values(record))
        grams = word_grams(texts, guard.copied_words)
        return lambda text: guard.flaw(first, text, grams)


def _turns(predictor: dspy.Predict, record: Record) -> tuple[Message, ...]:
    """A run as a demo, and its feedback as the user's answer; of a run without outputs the feedback alone."""
    outputs = record["Generated Outputs"]
    fields = {**record["Inputs"], **outputs} if isinstance(outputs, Mapping) else {}
    turns = render_turns(predictor, fields) if fields else ()
    return (*turns, Message.text("user", str(record["Feedback"])))


def _values(record: Record) -> list[object]:
    outputs = record["Generated Outputs"]
    given = outputs.values() if isinstance(outputs, Mapping) else [outputs]
    return [*record["Inputs"].values(), *given, record["Feedback"]]
