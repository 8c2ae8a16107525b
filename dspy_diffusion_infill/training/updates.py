"""Which examples an update sees, how they are masked, and how they are shared out over its batches."""

from __future__ import annotations

from functools import lru_cache
from random import Random

from torch import Tensor

from dspy_diffusion_infill.engine.vocabulary import Vocabulary
from dspy_diffusion_infill.training.corpus import Examples
from dspy_diffusion_infill.training.data import Example, Weighting, noise
from dspy_diffusion_infill.training.masking import Objective, stratified
from dspy_diffusion_infill.training.packing import Noised, lay_out, spread


class Updates:
    """Batches of one stage, by number; `num_batches` in a row make an update.

    The examples of a batch lie end to end in one row, apart, so that there is no padding.

    Everything is drawn from the seed and the numbers of stage and update: how often a run was resumed, or how
    many processes share it, changes nothing.

    Args:
        examples: By number.
        vocabulary: Of the model.
        objective: Of the stage.
        batch: Examples an update.
        num_batches: Batches an update.
        seed: Of the noise.
        stage: Number of the stage, so that a second one of the same objective masks other tokens.
        mix: Share of the examples that are masked by the other objective.
        weighting: Of the masked tokens' losses.
        stratify: Spread the noise levels of an update evenly.
    """

    def __init__(
        self,
        examples: Examples,
        vocabulary: Vocabulary,
        objective: Objective,
        *,
        batch: int,
        num_batches: int,
        seed: int,
        stage: int = 0,
        mix: float = 0.0,
        weighting: Weighting = "mean",
        stratify: bool = False,
    ) -> None:
        self.examples = examples
        self.vocabulary = vocabulary
        self.objective: Objective = objective
        self.batch = batch
        self.num_batches = num_batches
        self.seed = seed
        self.stage = stage
        self.mix = mix
        self.weighting: Weighting = weighting
        self.stratify = stratify
        self.noised = lru_cache(maxsize=2)(self._draw)  # every batch of an update asks for all of it

    def __call__(self, number: int) -> dict[str, Tensor]:
        """The batch of this number: update `number // num_batches`, part `number % num_batches`."""
        update, part = divmod(number, self.num_batches)
        noised = self.noised(update)
        shares = spread([len(one.ids) for one in noised], self.num_batches)
        return lay_out([[noised[index] for index in shares[part]]], self.vocabulary.padding_id)

    def _draw(self, update: int) -> list[Noised]:
        random = Random(f"{self.seed}:{self.stage}:{self.objective}:{update}")
        levels = stratified(self.batch, random) if self.stratify else [None] * self.batch
        first = update * self.batch
        return [
            self._noise(self.examples[first + index], level, random) for index, level in enumerate(levels)
        ]

    def _noise(self, example: Example, level: float | None, random: Random) -> Noised:
        objective: Objective = self.objective
        if random.random() < self.mix:
            objective = "ro" if objective == "fs" else "fs"
        seed, mask_token_id = random.getrandbits(62), self.vocabulary.mask_token_id
        return noise(example, objective, seed, mask_token_id, t=level, weighting=self.weighting)
