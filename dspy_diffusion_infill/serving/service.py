"""Infill, score and tokenize: from a request to its answer, in the thread of who asks."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from dspy_diffusion_infill.engine.infiller import DiffusionInfiller
from dspy_diffusion_infill.engine.length import most_masks
from dspy_diffusion_infill.engine.likelihood import (
    Target,
    masked_nll_steps,
    nelbo_steps,
    response_target,
)
from dspy_diffusion_infill.engine.model import TextModel
from dspy_diffusion_infill.errors import RefusedError
from dspy_diffusion_infill.prompts.canvas import CacheMode, Canvas, Denoising, Filling, Masked
from dspy_diffusion_infill.serving.limits import Limits
from dspy_diffusion_infill.serving.metrics import Metrics
from dspy_diffusion_infill.serving.scheduler import Scheduler
from dspy_diffusion_infill.serving.schemas import (
    FillingBody,
    InfillAnswer,
    InfillRequest,
    TextMessage,
    Usage,
)
from dspy_diffusion_infill.serving.text_schemas import (
    FilledCanvas,
    ScoreAnswer,
    ScoreBody,
    ScoreInput,
    ScoreRequest,
    TokenizeAnswer,
    TokenizeRequest,
)
from dspy_diffusion_infill.serving.work import Ticket

Result = TypeVar("Result")


class Service:
    """What a served model can do, besides writing answers.

    Args:
        model: Run by the scheduler alone.
        name: That requests call it by.
        scheduler: Of that model.
        limits: On one request.
        metrics: Told how many tokens were read and written.
    """

    def __init__(
        self, model: TextModel, name: str, scheduler: Scheduler, limits: Limits, metrics: Metrics
    ) -> None:
        self.model, self.name = model, name
        self._scheduler, self._limits, self._metrics = scheduler, limits, metrics
        self._infiller = DiffusionInfiller(model)
        self.cache: CacheMode = self._infiller.denoising.cache
        """What cache mode "auto" means here."""

    def check_name(self, name: str | None) -> None:
        """Refuse a request for another model.

        Raises:
            RefusedError: If it is one.
        """
        if name not in (None, self.name):
            raise RefusedError(404, "model_not_found", f"model must be {self.name!r}; got {name!r}.")

    def infill(self, request: InfillRequest, ticket: Ticket) -> InfillAnswer:
        """Fill canvases, as `DiffusionInfiller` does.

        Raises:
            CanvasError: If one cannot be laid out.
            RefusedError: If too much is asked at once.
        """
        canvases = [canvas.read(request.context) for canvas in request.canvases]
        denoising = self._settled(request.denoising())
        self._check_size(canvases, request.n, adaptive=denoising.length == "adaptive")
        infiller = DiffusionInfiller(self.model, denoising, run=partial(self._scheduler.run, ticket))
        fillings = infiller.infill(canvases, num_candidates=request.n, seed=request.seed)
        return InfillAnswer(
            model=self.name,
            fillings=[[FillingBody.of(filling) for filling in each] for each in fillings],
            usage=self._usage(canvases, fillings),
        )

    def score(self, request: ScoreRequest, ticket: Ticket) -> ScoreAnswer:
        """Estimate how likely texts are.

        Raises:
            CanvasError: If one is longer than the context.
            SettingsError: If one has nothing to score.
        """
        if request.canvases is not None:
            return self._score_canvases(request.canvases, request.context, ticket)
        targets = [self._target(each) for each in request.inputs or ()]
        begin = partial(
            nelbo_steps,
            self.model,
            targets,
            num_samples=request.num_samples,
            estimator=request.estimator,
            seed=request.seed,
        )
        found, usage = self._scored(ticket, targets, begin, request.num_samples)
        return ScoreAnswer(model=self.name, scores=[ScoreBody.of(each) for each in found], usage=usage)

    def _score_canvases(
        self, canvases: Sequence[FilledCanvas], context: list[TextMessage], ticket: Ticket
    ) -> ScoreAnswer:
        """As `DiffusionInfiller.nll_per_token`."""
        targets = [self._infiller.target(canvas.read(context), canvas.texts) for canvas in canvases]
        found, usage = self._scored(ticket, targets, partial(masked_nll_steps, self.model, targets), 1)
        return ScoreAnswer(model=self.name, nll_per_token=found, usage=usage)

    def _scored(
        self,
        ticket: Ticket,
        targets: Sequence[Target],
        begin: Callable[[], Generator[None, None, Result]],
        times: int,
    ) -> tuple[Result, Usage]:
        num_tokens = sum(len(target.ids) for target in targets)
        found = self._scheduler.run_steps(ticket, begin, num_tokens * times)
        return found, self.used(num_tokens, 0)

    def tokenize(self, request: TokenizeRequest) -> TokenizeAnswer:
        """Divide a text into tokens, or count those of a canvas.

        Raises:
            CanvasError: If the canvas holds no mask.
            RefusedError: If it holds too many.
        """
        if request.canvas is not None:
            canvas = request.canvas.read(request.context)
            self._check_size([canvas], 1)
            return TokenizeAnswer(num_tokens=self._infiller.num_tokens(canvas))
        text, vocabulary = request.text or "", self.model.vocabulary
        ids = vocabulary.encode(text)
        offsets = [list(span) for span in vocabulary.offsets(text)]
        return TokenizeAnswer(num_tokens=len(ids), ids=ids, offsets=offsets)

    def used(self, prompt: int, completion: int) -> Usage:
        """Count tokens, and say how many."""
        self._metrics.tokens.labels("prompt").inc(prompt)
        self._metrics.tokens.labels("completion").inc(completion)
        return Usage.of(prompt, completion)

    def _settled(self, denoising: Denoising) -> Denoising:
        return replace(denoising, cache=self.cache) if denoising.cache == "auto" else denoising

    def _check_size(self, canvases: Sequence[Canvas], n: int, *, adaptive: bool = False) -> None:
        parts = [part for canvas in canvases for part in _masked(canvas)]
        masks = n * sum(most_masks(part, adaptive=adaptive) for part in parts)
        if masks > self._limits.new_tokens:
            raise RefusedError(
                400,
                "too_many_masks",
                f"Mask tokens times n must be at most {self._limits.new_tokens} in one request; got {masks}.",
            )

    def _usage(self, canvases: Sequence[Canvas], fillings: Sequence[Sequence[Filling]]) -> Usage:
        asked = [sum(part.num_tokens for part in _masked(canvas)) for canvas in canvases]
        given = [self._infiller.num_tokens(canvas) for canvas in canvases]
        written = sum(len(part) for each in fillings for filling in each for part in filling.confidences)
        return self.used(sum(given) - sum(asked), written)

    def _target(self, given: ScoreInput) -> Target:
        vocabulary = self.model.vocabulary
        if given.messages is not None and given.response is not None:
            return response_target(vocabulary, [message.read() for message in given.messages], given.response)
        before = len(vocabulary.lay_out_text([]).ids)
        ids = vocabulary.lay_out_text([given.text or ""]).ids
        return Target(ids, range(before, len(ids)))


def _masked(canvas: Canvas) -> list[Masked]:
    return [part for message in canvas.messages for part in message.parts if isinstance(part, Masked)]
