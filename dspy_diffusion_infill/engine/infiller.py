"""A masked diffusion LM as an infiller: canvases of text in, texts out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

from dspy_diffusion_infill.engine.cache import Contexts, choose_mode
from dspy_diffusion_infill.engine.calibrate import stored_choice
from dspy_diffusion_infill.engine.denoise import Run, infill
from dspy_diffusion_infill.engine.length import has_range, with_best_lengths, with_length
from dspy_diffusion_infill.engine.likelihood import Target, masked_nll
from dspy_diffusion_infill.engine.model import TextModel
from dspy_diffusion_infill.engine.reverse import Decoding, Filled
from dspy_diffusion_infill.engine.vocabulary import Layout, check_length
from dspy_diffusion_infill.errors import CanvasError
from dspy_diffusion_infill.prompts.canvas import Canvas, Denoising, Filling, check_texts


class DiffusionInfiller:
    """Fills canvases with a model in this process; an `Infiller`, and a `Scorer`.

    Only the masked parts are written: the text around them goes in, and never comes out again. End-of-text,
    header and mask tokens are banned inside a masked part.

    Args:
        model: From `load`.
        denoising: How masks are turned into text. Its `num_candidates` is for the caller's use.
        run: Denoises the tasks; None: here and now.

    Example:
        >>> from dspy_diffusion_infill.prompts.canvas import Masked, Message
        >>> canvas = Canvas((Message("system", ("Rate the text", Masked(4), ".")),))
        >>> infiller = DiffusionInfiller(load("embedded"))  # doctest: +SKIP
        >>> infiller.infill([canvas], num_candidates=1, seed=0)[0][0].texts  # doctest: +SKIP
        (' from 1 to 5',)
    """

    def __init__(
        self,
        model: TextModel,
        denoising: Denoising = Denoising(),  # noqa: B008  (frozen)
        run: Run | None = None,
    ) -> None:
        self.model = model
        wanted = stored_choice(model) if denoising.cache == "auto" else None
        self.denoising = replace(denoising, cache=choose_mode(model, wanted or denoising.cache))
        self._contexts, self._run = Contexts(), run

    @property
    def name(self) -> str:
        """Identifies weights, precision and the settings that change the fillings."""
        return f"{self.model.name}?{self.denoising}"

    @property
    def context_length(self) -> int:
        """The most tokens a canvas may have."""
        return self.model.context_length

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Character range (start, end) of each token of `text`, in order; no special tokens."""
        return self.model.vocabulary.offsets(text)

    def num_tokens(self, canvas: Canvas) -> int:
        """Tokens of the whole canvas, masks and chat template included."""
        return len(self._lay_out(canvas).ids)

    def infill(self, canvases: Sequence[Canvas], *, num_candidates: int, seed: int) -> list[list[Filling]]:
        """Fill every canvas `num_candidates` times.

        Args:
            canvases: What to fill. Their fillings do not depend on one another.
            num_candidates: Fillings of each.
            seed: Of the token choice.

        Raises:
            CanvasError: If a canvas is longer than the model's context.
        """
        canvases = [self._with_best_lengths(canvas) for canvas in canvases]
        filled = self._fill(canvases, self.denoising, num_candidates, seed)
        return [[self._read(layout, one) for one in row] for layout, row in filled]

    def nll_per_token(self, canvases: Sequence[Canvas], texts: Sequence[Sequence[str]]) -> list[float]:
        """Negative log-likelihood of texts in the masked parts of canvases, in nats per token.

        All tokens of a canvas's texts are masked at once: one pass a canvas.

        Raises:
            CanvasError: If a canvas with its texts is longer than the model's context, or there are not as
                many texts as masked parts.
        """
        check_texts(canvases, texts)
        targets = [self.target(canvas, each) for canvas, each in zip(canvases, texts, strict=True)]
        return masked_nll(self.model, targets)

    def target(self, canvas: Canvas, texts: Sequence[str]) -> Target:
        """The canvas with the texts in place of its masks, and where these lie.

        Raises:
            CanvasError: If there is not one text for each masked part, or there is no token in them.
        """
        check_texts([canvas], [texts])
        written = [self.model.vocabulary.encode(text) for text in texts]
        if not any(written):
            raise CanvasError(f"texts must hold something to score; got {texts!r}.")
        for part, ids in enumerate(written):
            canvas = with_length(canvas, part, max(1, len(ids)))
        layout = self._lay_out(canvas)
        ids = list(layout.ids)
        for where, own in zip(layout.masked, written, strict=True):
            ids[where.start : where.start + len(own)] = own
        scored = (at for where, own in zip(layout.masked, written, strict=True) for at in where[: len(own)])
        return Target(ids, list(scored))

    def _fill(
        self, canvases: Sequence[Canvas], how: Denoising, num_candidates: int, seed: int
    ) -> list[tuple[Layout, list[Filled]]]:
        layouts = [self._lay_out(canvas) for canvas in canvases]
        for layout in layouts:
            check_length(len(layout.ids), self.context_length)
        # turns are laid out one by one: what the messages alone take comes first
        before = [len(self.model.vocabulary.lay_out(canvas.messages).ids) for canvas in canvases]
        filled = infill(
            self.model,
            [layout.ids for layout in layouts],
            num_candidates=num_candidates,
            decoding=Decoding(denoising=how),
            seed=seed,
            num_context=[len(layout.ids) - start for layout, start in zip(layouts, before, strict=True)],
            contexts=self._contexts,
            run=self._run,
        )
        return list(zip(layouts, filled, strict=True))

    def _with_best_lengths(self, canvas: Canvas) -> Canvas:
        everywhere = self.denoising.length == "adaptive"
        if not everywhere and not has_range(canvas):
            return canvas
        num_tokens = self.num_tokens(canvas)
        check_length(num_tokens, self.context_length)
        room = self.context_length - num_tokens
        return with_best_lengths(canvas, self._confidences, room, everywhere=everywhere)

    def _confidences(self, canvases: Sequence[Canvas]) -> list[float]:
        """Mean log probability of the likeliest tokens of each canvas at its first step."""
        first_step = replace(self.denoising, steps=1, temperature=0.0, remasking="low_confidence")
        filled = self._fill(canvases, first_step, num_candidates=1, seed=0)
        return [one.log_likelihood / sum(map(len, layout.masked)) for layout, (one,) in filled]

    def _lay_out(self, canvas: Canvas) -> Layout:
        return self.model.vocabulary.lay_out((*canvas.messages, *canvas.context))

    def _read(self, layout: Layout, filled: Filled) -> Filling:
        first = {content.start for content in layout.contents}
        texts = tuple(
            self.model.vocabulary.decode(
                filled.ids[part.start : part.stop], behind_text=part.start not in first
            )
            for part in layout.masked
        )
        each = iter(filled.probabilities)
        confidences = tuple(tuple(islice(each, len(part))) for part in layout.masked)
        return Filling(texts, filled.log_likelihood, filled.num_passes, confidences)
