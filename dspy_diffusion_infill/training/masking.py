"""The forward process: which tokens of a training example are masked.

Source: Fujinuma and Sakaguchi (arXiv:2604.03677), section 3.1 (full-sequence) and appendix G (response-only).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Objective = Literal["fs", "ro", "answer"]
"""Full-sequence masking; response-only masking; or the whole response masked, as when an answer begins."""


def full_sequence(maskable: Tensor, generator: torch.Generator) -> Tensor:
    """Mask exactly floor(t * n) of the n maskable tokens, t uniform on (0, 1); at least one.

    Differs from the paper: a draw of zero masks, which has no loss, masks one token.

    Args:
        maskable: bool, [length].
        generator: Source of the noise.

    Returns:
        bool, [length].

    Example:
        >>> maskable = torch.tensor([False, True, True, True])
        >>> masked = full_sequence(maskable, torch.Generator().manual_seed(0))
        >>> bool((masked <= maskable).all()), int(masked.sum()) in (1, 2)
        (True, True)
    """
    count = int(maskable.sum())
    ratio = torch.rand((), generator=generator, dtype=torch.float64)
    chosen = torch.randperm(count, generator=generator)[: max(1, int(ratio * count))]
    masked = torch.zeros_like(maskable)
    masked[maskable.nonzero()[chosen, 0]] = True
    return masked


def response_only(response: Tensor, generator: torch.Generator) -> Tensor:
    """Mask each response token with probability t, t uniform on (0, 1]; the prompt stays clean.

    Differs from the paper: a draw of zero masks, which has no loss, masks one token.

    Args:
        response: bool, [length]; the maskable tokens of the response.
        generator: Source of the noise.

    Returns:
        bool, [length].
    """
    ratio = 1 - torch.rand((), generator=generator, dtype=torch.float64)
    masked = (torch.rand(response.shape, generator=generator, dtype=torch.float64) < ratio) & response
    if not masked.any():
        positions = response.nonzero()[:, 0]
        masked[positions[torch.randint(len(positions), (), generator=generator)]] = True
    return masked
