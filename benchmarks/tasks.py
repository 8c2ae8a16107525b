"""What benchmarks of the embedded task share: sentences of three kinds, and a filler that knows nothing."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from dspy_diffusion_infill.demo import Review
from dspy_diffusion_infill.engine.infiller import DiffusionInfiller
from dspy_diffusion_infill.prompts.canvas import Canvas, Filling, Masked
from dspy_diffusion_infill.training.grammar import Reviews

GENERATED_SEED = "benchmark"
"""Training seeds its sentences by stage and update, so that this one is nobody else's."""


@dataclass(frozen=True, slots=True)
class Domain:
    """Sentences of one kind, with their grades."""

    name: str
    reviews: list[Review]


def generated_reviews(count: int = 400) -> list[Review]:
    """Fresh sentences from the grammar, as many of each grade."""
    reviews = Reviews(Random(GENERATED_SEED))
    return [reviews.draw(number % 5) for number in range(count)]


def real_reviews(folder: Path, split: str) -> list[Review]:
    """The sentences of `sst5_SPLIT.jsonl`: `text`, and `label` from 0 (very negative) to 4."""
    with (folder / f"sst5_{split}.jsonl").open(encoding="utf-8") as lines:
        return [(row["text"], row["label"]) for row in map(json.loads, lines)]


def cells_parser(description: str | None) -> argparse.ArgumentParser:
    """A command line whose cells are held-out schemes and seeds."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="file for the result")
    parser.add_argument("--schemes", type=int, default=5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    return parser


def real_sentences(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The same, which may be pointed at real sentences as well."""
    parser.add_argument("--data", type=Path, help="folder with sst5_SPLIT.jsonl, for real sentences as well")
    parser.add_argument("--split", default="dev")
    return parser


class RandomInfiller:
    """Fills masks with random tokens of the same vocabulary: what search achieves without a model.

    Args:
        infiller: Whose tokenizer and context are used.
    """

    def __init__(self, infiller: DiffusionInfiller) -> None:
        self.infiller = infiller
        vocabulary = infiller.model.vocabulary
        self.words = sorted(set(range(vocabulary.num_ids)) - vocabulary.banned_ids)
        self.name = f"random tokens of {infiller.name}"
        self.context_length = infiller.context_length

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """As the infiller's."""
        return self.infiller.offsets(text)

    def num_tokens(self, canvas: Canvas) -> int:
        """As the infiller's."""
        return self.infiller.num_tokens(canvas)

    def infill(self, canvases: Sequence[Canvas], *, num_candidates: int, seed: int) -> list[list[Filling]]:
        """Draw every token uniformly."""
        random = Random(seed)
        return [[self._filling(canvas, random) for _ in range(num_candidates)] for canvas in canvases]

    def _filling(self, canvas: Canvas, random: Random) -> Filling:
        decode = self.infiller.model.vocabulary.decode
        masks = [part for message in canvas.messages for part in message.parts if isinstance(part, Masked)]
        texts = tuple(decode(random.choices(self.words, k=mask.num_tokens)) for mask in masks)
        return Filling(texts, log_likelihood=0.0, num_passes=0)


class WithoutExamples:
    """Fills masks as another infiller does, but sees no examples.

    Args:
        infiller: The other one.
    """

    def __init__(self, infiller: DiffusionInfiller) -> None:
        self.infiller = infiller
        self.name = f"{infiller.name} without examples"
        self.context_length = infiller.context_length

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """As the infiller's."""
        return self.infiller.offsets(text)

    def num_tokens(self, canvas: Canvas) -> int:
        """As the infiller's."""
        return self.infiller.num_tokens(canvas)

    def infill(self, canvases: Sequence[Canvas], *, num_candidates: int, seed: int) -> list[list[Filling]]:
        """Leave the context out."""
        bare = [replace(canvas, context=()) for canvas in canvases]
        return self.infiller.infill(bare, num_candidates=num_candidates, seed=seed)
