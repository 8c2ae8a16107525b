"""A masked diffusion LM as an infiller: canvases of text in, texts out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dspy_diffusion_infill.engine.cache import Contexts, choose_mode
from dspy_diffusion_infill.engine.calibrate import stored_choice
from dspy_diffusion_infill.engine.denoise import infill
from dspy_diffusion_infill.engine.model import TextModel
from dspy_diffusion_infill.engine.reverse import Decoding, Filled
from dspy_diffusion_infill.engine.vocabulary import Layout, check_length
from dspy_diffusion_infill.prompts.canvas import Canvas, Denoising, Filling


class DiffusionInfiller:
    """Fills canvases with a model in this process; an `Infiller`.

    Only the masked parts are written: the text around them goes in, and never comes out again. End-of-text,
    header and mask tokens are banned inside a masked part.

    Args:
        model: From `load`.
        denoising: How masks are turned into text. Its `num_candidates` is for the caller's use.

    Example:
        >>> from dspy_diffusion_infill.prompts.canvas import Masked, Message
        >>> canvas = Canvas((Message("system", ("Rate the text", Masked(4), ".")),))
        >>> infiller = DiffusionInfiller(load("embedded"))  # doctest: +SKIP
        >>> infiller.infill([canvas], num_candidates=1, seed=0)[0][0].texts  # doctest: +SKIP
        (' from 1 to 5',)
    """

    def __init__(self, model: TextModel, denoising: Denoising = Denoising()) -> None:  # noqa: B008  (frozen)
        self.model = model
        wanted = stored_choice(model) if denoising.cache == "auto" else None
        self.denoising = replace(denoising, cache=choose_mode(model, wanted or denoising.cache))
        self._contexts = Contexts()

    @property
    def name(self) -> str:
        """Identifies weights, precision and the settings that change the fillings."""
        how = self.denoising
        return (
            f"{self.model.name}?steps={how.steps}&temperature={how.temperature:g}&remasking={how.remasking}"
            f"&cache={how.cache}"
        )

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
        layouts = [self._lay_out(canvas) for canvas in canvases]
        for layout in layouts:
            check_length(len(layout.ids), self.context_length)
        filled = infill(
            self.model,
            [layout.ids for layout in layouts],
            num_candidates=num_candidates,
            decoding=Decoding(denoising=self.denoising),
            seed=seed,
            num_context=[
                self._num_context(canvas, layout) for canvas, layout in zip(canvases, layouts, strict=True)
            ],
            contexts=self._contexts,
        )
        return [[self._read(layout, one) for one in row] for layout, row in zip(layouts, filled, strict=True)]

    def _lay_out(self, canvas: Canvas) -> Layout:
        return self.model.vocabulary.lay_out((*canvas.messages, *canvas.context))

    def _num_context(self, canvas: Canvas, layout: Layout) -> int:
        """Turns are laid out one by one, so that what the messages alone take comes first."""
        return len(layout.ids) - len(self.model.vocabulary.lay_out(canvas.messages).ids)

    def _read(self, layout: Layout, filled: Filled) -> Filling:
        texts = tuple(
            self.model.vocabulary.decode(filled.ids[part.start : part.stop]) for part in layout.masked
        )
        return Filling(texts, filled.log_likelihood, filled.num_passes)
