"""Classifier-free guidance: away from what the model would write without the given text."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dspy_diffusion_infill.engine.cache import FullPasses, Passes
from dspy_diffusion_infill.engine.model import MaskPredictor
from dspy_diffusion_infill.engine.rows import stacked


class GuidedPasses:
    """Logits u + (1 + strength) (c - u), where u are those of the canvas with all that was given masked.

    Source: LLaDA (arXiv:2502.09992), `generate.py`. Differs in cache mode *context*, whose context is no part
    of the rows: there u is without it.

    Args:
        model: Computes u, by full passes.
        passes: Compute c.
        strength: 0 leaves c as it is.
    """

    def __init__(self, model: MaskPredictor, passes: Passes, strength: float) -> None:
        self._passes, self._blind, self._strength = passes, FullPasses(model), strength
        self._mask_token_id = model.mask_token_id
        self._given: Tensor | None = None

    def logits(self, ids: Tensor, attention_mask: Tensor, wanted: Tensor, rows: Sequence[int]) -> Tensor:
        """As `Passes.logits`, from two passes."""
        if self._given is None:
            self._given = ids != self._mask_token_id
        given = self._given[torch.tensor(rows, device=ids.device)]
        hidden = ids.masked_fill(given, self._mask_token_id)
        blind = self._blind.logits(hidden, attention_mask, wanted, rows)
        guided = self._passes.logits(ids, attention_mask, wanted, rows)
        return blind + (1 + self._strength) * (guided - blind)

    def keep(self, rows: Sequence[int]) -> None:
        """As `Passes.keep`."""
        assert self._given is not None
        self._given = self._given[list(rows)]
        self._passes.keep(rows)

    def join(self, other: GuidedPasses) -> None:
        """As `Passes.join`."""
        assert self._given is not None
        assert other._given is not None
        self._given = stacked(self._given, other._given)
        self._passes.join(other._passes)
