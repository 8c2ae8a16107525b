"""From windows to candidates: canvas, infill, guard."""

from __future__ import annotations

import functools
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import cast

from dspy_diffusion_infill.prompts.candidates import Candidate, Rejected, as_read, propose
from dspy_diffusion_infill.prompts.canvas import Canvas, Filling, Infiller, Scorer
from dspy_diffusion_infill.prompts.conditioning import Conditioning
from dspy_diffusion_infill.prompts.guards import Guard, word_grams
from dspy_diffusion_infill.prompts.locks import LockSetting, locked_spans, unlocked
from dspy_diffusion_infill.prompts.protocols import program_locks
from dspy_diffusion_infill.prompts.render import render_prompt, render_window
from dspy_diffusion_infill.prompts.trace_turns import Redact
from dspy_diffusion_infill.prompts.windows import Masking, Window
from dspy_diffusion_infill.search import failures
from dspy_diffusion_infill.search.answers import checked_fillings
from dspy_diffusion_infill.search.collecting import Collector, Traces
from dspy_diffusion_infill.search.events import WindowFilled
from dspy_diffusion_infill.search.screening import ScoringInfiller, Screen, expectations
from dspy_diffusion_infill.search.session import Session
from dspy_diffusion_infill.search.start import Start
from dspy_diffusion_infill.traces import Trace

NOWHERE = Window(0, 0, ())
"""For instructions that are not one window's."""


@dataclass(frozen=True, slots=True)
class Place:
    """A window of one predictor's instructions."""

    predictor: str
    window: Window

    def overlaps(self, other: Place) -> bool:
        """Whether both have a character of one text in common."""
        ours, theirs = self.window, other.window
        return self.predictor == other.predictor and ours.start < theirs.end and theirs.start < ours.end


@dataclass(frozen=True, slots=True)
class Proposal:
    """What the infiller made of one place."""

    base: Candidate
    """What the place was cut from."""
    place: Place
    candidates: list[Candidate]
    """The likeliest filling's first."""
    rejected: list[Rejected]

    def filled(self, pass_number: int, spent: int) -> WindowFilled:
        """What to tell of it before its candidates compete."""
        window, name = self.place.window, self.place.predictor
        return WindowFilled(
            metric_calls=spent,
            pass_number=pass_number,
            predictor=name,
            start=window.start,
            before=self.base[name][window.start : window.end],
            num_candidates=len(self.candidates),
            num_rejected=len(self.rejected),
        )

    def sifted(self, stay: Sequence[bool], worths: Sequence[float]) -> Proposal:
        """Without the candidates that do not stay; these are rejected, with what they were worth."""
        window, name = self.place.window, self.place.predictor
        kept, rejected = list[Candidate](), list(self.rejected)
        for candidate, stays, worth in zip(self.candidates, stay, worths, strict=True):
            if stays:
                kept.append(candidate)
            else:
                reason = f"screened out: reference outputs {worth:+.3f} likelier"
                rejected.append(Rejected(window.filling_of(self.base[name], candidate[name]), reason))
        return replace(self, candidates=kept, rejected=rejected)


class Proposer:
    """Proposes new instructions.

    Args:
        start: Whose predictors are rendered; what its instructions hold is allowed to stay; its calls
            condition where labels do not reach. Not modified.
        session: Its trainset conditions; none of its examples may be copied into instructions.
        infiller: Fills the windows.
        masking: Which windows there are.
        lock: What no window may touch.
        guard: What may not get in; None lets everything in.
        num_candidates: Fillings a window.
        redact: Takes out of examples and traces what must not reach the infiller.
        seed: Of the fillings, and of the order of examples.
    """

    def __init__(
        self,
        start: Start,
        session: Session,
        infiller: Infiller,
        *,
        masking: Masking,
        lock: LockSetting,
        guard: Guard | None,
        num_candidates: int,
        redact: Redact | None,
        seed: int,
    ) -> None:
        self._predictors = dict(start.program.named_predictors())
        self._first, self._infiller = start.instructions, infiller
        self._cutters = {name: masking.cutter(name, text) for name, text in self._first.items()}
        self._conditioning = Conditioning(
            start.program,
            session.task.trainset,
            start.calls,
            shots=session.selection.shots,
            seed=seed,
            condition_on=session.condition_on,
            max_score=session.selection.max_score,
            redact=redact,
        )
        self._collector, self._forbidden = Collector(start, session), Traces()
        self._locks, self._guard = program_locks(start.program, lock), guard
        given = session.task.trainset + session.task.valset + session.task.holdout
        self._grams = set[tuple[str, ...]]()
        self._forbid(str(value) for example in given for value in example.values())
        screen = session.selection.screen
        self._screen = Screen(screen) if screen < 1 else None
        self._num_candidates, self._seed = num_candidates, seed
        self._visits: Counter[str] = Counter()
        self._pause = session.meter.pause

    def places(self, candidate: Candidate, predictor: str) -> list[Place]:
        """The windows of one predictor's instructions, from left to right, clear of what is locked."""
        text = candidate[predictor]
        locked = locked_spans(text, self._locks[predictor])
        windows = self._cutters[predictor](text, self._infiller.offsets(text), locked)
        return [Place(predictor, window) for window in windows]

    def propose(self, base: Candidate, places: Sequence[Place]) -> list[Proposal]:
        """Fill windows of one base, each on its own, in one batch.

        Each batch has a seed of its own and shows the infiller other examples; the windows of one predictor
        share theirs, so that a model may encode these once.
        """
        canvases = self._canvases(base, places)
        visits = {predictor: self._visits[predictor] for predictor in {place.predictor for place in places}}
        self._visits.update(visits.keys())
        first = places[0].predictor
        infill = functools.partial(
            self._infiller.infill,
            canvases,
            num_candidates=self._num_candidates,
            seed=random.Random(f"{self._seed}/{first}/{visits[first]}").getrandbits(31),
        )
        answer = failures.retry(infill, failures.PAUSES, self._pause)
        found = checked_fillings(answer, canvases, self._num_candidates, self._infiller)
        pairs = zip(places, found, strict=True)
        proposals = [self._proposal(base, place, fillings) for place, fillings in pairs]
        return proposals if self._screen is None else self._screened(base, proposals, self._screen)

    def least_sure(self, base: Candidate) -> list[Place]:
        """All windows of a base, the one whose text the model finds least likely first.

        The infiller is a `Scorer`: `check_scorer` has seen to that. It is shown what the next batch shows.
        """
        places = [place for predictor in base for place in self.places(base, predictor)]
        if len(places) < 2:
            return places
        texts = [[base[place.predictor][place.window.start : place.window.end]] for place in places]
        nll = functools.partial(
            cast(Scorer, self._infiller).nll_per_token, self._canvases(base, places), texts
        )
        found = failures.retry(nll, failures.PAUSES, self._pause)
        return [places[n] for n in sorted(range(len(places)), key=lambda n: -found[n])]

    def allows(self, base: Candidate, candidate: Candidate) -> bool:
        """Whether DSPy reads what differs from the base as it is, and the guard lets it in."""
        changed = {name: text for name, text in candidate.items() if text != base[name]}
        return all(
            as_read(text) == text and not self._flaw(base, name, text) for name, text in changed.items()
        )

    def _proposal(self, base: Candidate, place: Place, fillings: Sequence[Filling]) -> Proposal:
        guard = functools.partial(self._flaw, base, place.predictor, window=place.window)
        return Proposal(base, place, *propose(base, place.predictor, place.window, fillings, guard))

    def _screened(self, base: Candidate, proposals: Sequence[Proposal], screen: Screen) -> list[Proposal]:
        worths = [self._worths(base, proposal) for proposal in proposals]
        stay = iter(screen.sift([worth for own in worths for worth in own]))
        return [
            proposal.sifted([next(stay) for _ in own], own) if own else proposal
            for proposal, own in zip(proposals, worths, strict=True)
        ]

    def _worths(self, base: Candidate, proposal: Proposal) -> list[float]:
        """How much likelier each candidate makes the reference outputs; nothing where there are none."""
        if not proposal.candidates:
            return []
        name = proposal.place.predictor
        texts = [base[name], *(candidate[name] for candidate in proposal.candidates)]
        expect = functools.partial(
            expectations,
            [render_prompt(self._predictors[name], text) for text in texts],
            self._conditioning.references(name),
            cast(ScoringInfiller, self._infiller),
        )
        found = failures.retry(expect, failures.PAUSES, self._pause)
        return [] if found is None else [each - found[0] for each in found[1:]]

    def _canvases(self, base: Candidate, places: Sequence[Place]) -> list[Canvas]:
        traces = self._collector.of(base)
        if traces is not self._forbidden:
            self._forbid(text for own in traces.values() for trace in own for text in trace.texts())
            self._forbidden = traces
        return [self._canvas(base, place, traces[place.predictor]) for place in places]

    def _canvas(self, base: Candidate, place: Place, traces: Sequence[Trace]) -> Canvas:
        name, visit = place.predictor, self._visits[place.predictor]
        messages = render_window(self._predictors[name], base[name], place.window)
        return self._conditioning.canvas(name, messages, visit, self._infiller, traces)

    def _forbid(self, texts: Iterable[str]) -> None:
        """Let no words of these texts get in."""
        if self._guard is not None:
            self._grams |= word_grams(texts, self._guard.copied_words)

    def _flaw(self, base: Candidate, predictor: str, text: str, window: Window = NOWHERE) -> str | None:
        """What is wrong with instructions, given the first ones, or what the user wrote in a template."""
        rewritten = (window.start, window.end)
        if lost := unlocked(base[predictor], text, self._locks[predictor], rewritten):
            return f"unlocks {lost!r}"
        first = "".join(window.around) or self._first[predictor]
        return self._guard.flaw(first, text, self._grams) if self._guard else None
