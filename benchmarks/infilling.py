"""What benchmarks of infilling share: windows as canvases, and fillings as token ids."""

from __future__ import annotations

from collections.abc import Sequence

from dspy_diffusion_infill.engine.infiller import DiffusionInfiller
from dspy_diffusion_infill.engine.model import TextModel
from dspy_diffusion_infill.engine.reverse import Filled
from dspy_diffusion_infill.engine.vocabulary import Layout, Vocabulary
from dspy_diffusion_infill.prompts.canvas import CacheMode, Canvas, Denoising, Filling, Masked, Message
from dspy_diffusion_infill.prompts.windows import SlidingWindow

WINDOW = 8
FAST: tuple[CacheMode, ...] = ("window", "context")


class Recorder(DiffusionInfiller):
    """The infiller that `compile` uses; remembers the token ids it read its fillings from."""

    def __init__(self, model: TextModel, denoising: Denoising) -> None:
        super().__init__(model, denoising)
        self.ids: list[list[int]] = []

    def _read(self, layout: Layout, filled: Filled) -> Filling:
        self.ids.append(filled.ids)
        return super()._read(layout, filled)


def canvases(vocabulary: Vocabulary, instructions: str, shots: Sequence[Message]) -> list[Canvas]:
    """A canvas for each window of the instructions, all with the same examples."""
    windows = SlidingWindow(window=WINDOW, mask=WINDOW).windows(
        instructions, vocabulary.offsets(instructions)
    )
    parts = [(instructions[: one.start], Masked(WINDOW), instructions[one.end :]) for one in windows]
    return [
        Canvas((Message("system", tuple(part for part in each if part != "")),), tuple(shots))
        for each in parts
    ]


def filled(model: TextModel, rows: Sequence[Canvas], mode: CacheMode) -> list[list[int]]:
    """Token ids of each canvas after infilling, by an infiller that has seen no context before."""
    infiller = Recorder(model, Denoising(temperature=0.0, cache=mode))
    infiller.infill(rows, num_candidates=1, seed=0)
    return infiller.ids
