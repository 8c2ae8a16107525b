"""Infilling as the step by which GEPA changes an instruction; no reflection LM is needed."""

from __future__ import annotations

import functools
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, cast

import dspy

from dspy_diffusion_infill.prompts.candidates import propose
from dspy_diffusion_infill.prompts.canvas import Canvas, Denoising, Infiller, Scorer
from dspy_diffusion_infill.prompts.conditioning import fit_traces
from dspy_diffusion_infill.prompts.guards import Guard, word_grams
from dspy_diffusion_infill.prompts.locks import LockSetting, check_locks, locked_spans, unlocked
from dspy_diffusion_infill.prompts.program import instructions_of
from dspy_diffusion_infill.prompts.protocols import check_masking, program_locks
from dspy_diffusion_infill.prompts.render import render_window
from dspy_diffusion_infill.prompts.templates import Template
from dspy_diffusion_infill.prompts.trace_turns import Redact, redacted, trace_turns
from dspy_diffusion_infill.prompts.windows import SlidingWindow, Window
from dspy_diffusion_infill.search import failures
from dspy_diffusion_infill.search.rounds import check_scorer
from dspy_diffusion_infill.serving.connect import connect
from dspy_diffusion_infill.traces import Trace

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
    redact: Redact | None = None,
    seed: int = 0,
) -> InfillProposer:
    """Make what GEPA takes as its `instruction_proposer`.

    GEPA's search over a Pareto front stays; each change it tries is one window of an instruction, filled in
    sight of the runs that GEPA reflects on and of the feedback they got: laid out as `DiffusionInfill` lays
    out traces.

    Args:
        program: The student, whose prompts are rendered. Not modified.
        infiller: As for `DiffusionInfill`, and so are the settings below.
        masking: Which windows there are; for each change one is drawn, or with `order="least_sure"` the one
            that the model finds least likely in sight of those runs is taken.
        denoising: How a window is filled; the likeliest filling that the guard lets in is proposed.
        lock: Text that is never rewritten.
        guard: Text that is never let in, e.g. words copied from a run.
        redact: Takes secrets out of runs and feedback before they reach the infiller.
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
    found = check_scorer(connect(infiller, denoising), masking)
    return InfillProposer(program, found, masking, denoising, lock, guard, redact, seed)


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
        redact: Redact | None,
        seed: int,
    ) -> None:
        self._predictors = dict(program.named_predictors())
        self._infiller, self._num_candidates, self._seed = infiller, denoising.num_candidates, seed
        self._locks, self._guard, self._redact = program_locks(program, lock), guard, redact
        self._ranks = masking.order == "least_sure"
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
        window = self._least_sure(name, text, windows, records) if self._ranks else draw.choice(windows)
        infill = functools.partial(
            self._infiller.infill,
            [self._canvas(name, text, window, records)],
            num_candidates=self._num_candidates,
            seed=draw.getrandbits(31),
        )
        (fillings,) = failures.retry(infill, failures.PAUSES, time.sleep)
        candidates, _ = propose(candidate, name, window, fillings, self._flaw_in(name, text, window, records))
        return candidates[0][name] if candidates else text

    def _least_sure(
        self, name: str, text: str, windows: Sequence[Window], records: Sequence[Record]
    ) -> Window:
        """The window whose text the model finds least likely; the first of several."""
        nll = functools.partial(
            cast(Scorer, self._infiller).nll_per_token,
            [self._canvas(name, text, window, records) for window in windows],
            [[text[window.start : window.end]] for window in windows],
        )
        found = failures.retry(nll, failures.PAUSES, time.sleep)
        return windows[max(range(len(windows)), key=lambda n: found[n])]

    def _canvas(self, name: str, text: str, window: Window, records: Sequence[Record]) -> Canvas:
        predictor = self._predictors[name]
        messages = render_window(predictor, text, window)
        turns = [trace_turns(predictor, trace) for trace in map(_trace, records) if trace is not None]
        shown = [redacted(one, self._redact) for one in turns]
        canvas, _ = fit_traces(name, messages, shown, self._infiller)
        return canvas

    def _flaw_in(
        self, name: str, before: str, window: Window, records: Sequence[Record]
    ) -> Callable[[str], str | None]:
        guard, first = self._guard, "".join(window.around) or self._firsts[name]
        texts = (str(value) for record in records for value in _values(record))
        grams = word_grams(texts, guard.copied_words) if guard else set[tuple[str, ...]]()

        def flaw(text: str) -> str | None:
            lost = unlocked(before, text, self._locks[name], (window.start, window.end))
            return lost or (guard.flaw(first, text, grams) if guard else None)

        return flaw


def _trace(record: Record) -> Trace | None:
    """A run as GEPA tells it: the score is in the feedback; None if there is neither that nor an answer."""
    outputs, said = record["Generated Outputs"], str(record["Feedback"])
    given = dict(outputs) if isinstance(outputs, Mapping) else {}  # else what could not be parsed
    return Trace(dict(record["Inputs"]), given, feedback=said) if given or said else None


def _values(record: Record) -> list[object]:
    outputs = record["Generated Outputs"]
    given = outputs.values() if isinstance(outputs, Mapping) else [outputs]
    return [*record["Inputs"].values(), *given, record["Feedback"]]
