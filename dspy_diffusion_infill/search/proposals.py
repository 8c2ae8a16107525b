"""From windows to candidates: canvas, infill, guard."""

from __future__ import annotations

import functools
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from dspy_diffusion_infill.prompts.candidates import Candidate, Rejected, as_read, propose
from dspy_diffusion_infill.prompts.canvas import Canvas, Filling, Infiller
from dspy_diffusion_infill.prompts.conditioning import Conditioning
from dspy_diffusion_infill.prompts.guards import Guard, word_grams
from dspy_diffusion_infill.prompts.locks import LockSetting, locked_spans
from dspy_diffusion_infill.prompts.protocols import program_locks
from dspy_diffusion_infill.prompts.render import render_window
from dspy_diffusion_infill.prompts.windows import Masking, Window
from dspy_diffusion_infill.search import failures
from dspy_diffusion_infill.search.session import Session
from dspy_diffusion_infill.search.start import Start


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

    place: Place
    candidates: list[Candidate]
    """The likeliest filling's first."""
    rejected: list[Rejected]


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
        seed: int,
    ) -> None:
        self._predictors = dict(start.program.named_predictors())
        self._first, self._infiller = start.instructions, infiller
        self._cutters = {name: masking.cutter(name, text) for name, text in self._first.items()}
        task, shots = session.task, session.selection.shots
        self._conditioning = Conditioning(start.program, task.trainset, start.calls, shots=shots, seed=seed)
        self._locks, self._guard = program_locks(start.program, lock), guard
        given = task.trainset + task.valset + task.holdout
        examples = [str(value) for example in given for value in example.values()]
        self._grams = word_grams(examples, guard.copied_words) if guard else set()
        self._num_candidates, self._seed = num_candidates, seed
        self._visits: Counter[str] = Counter()

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
        visits = {predictor: self._visits[predictor] for predictor in {place.predictor for place in places}}
        self._visits.update(visits.keys())
        first = places[0].predictor
        infill = functools.partial(
            self._infiller.infill,
            [self._canvas(base, place, visits[place.predictor]) for place in places],
            num_candidates=self._num_candidates,
            seed=random.Random(f"{self._seed}/{first}/{visits[first]}").getrandbits(31),
        )
        found = failures.retry(infill, failures.PAUSES, time.sleep)
        return [self._proposal(base, place, fillings) for place, fillings in zip(places, found, strict=True)]

    def allows(self, base: Candidate, candidate: Candidate) -> bool:
        """Whether DSPy reads what differs from the base as it is, and the guard lets it in."""
        changed = {name: text for name, text in candidate.items() if text != base[name]}
        return all(as_read(text) == text and self._flaw(name, text) is None for name, text in changed.items())

    def _proposal(self, base: Candidate, place: Place, fillings: Sequence[Filling]) -> Proposal:
        guard = functools.partial(self._flaw, place.predictor, written="".join(place.window.around))
        return Proposal(place, *propose(base, place.predictor, place.window, fillings, guard))

    def _canvas(self, base: Candidate, place: Place, visit: int) -> Canvas:
        messages = render_window(self._predictors[place.predictor], base[place.predictor], place.window)
        return self._conditioning.canvas(place.predictor, messages, visit, self._infiller)

    def _flaw(self, predictor: str, text: str, *, written: str = "") -> str | None:
        """What the guard says of instructions, given the first ones, or what the user wrote in a template."""
        return self._guard.flaw(written or self._first[predictor], text, self._grams) if self._guard else None
