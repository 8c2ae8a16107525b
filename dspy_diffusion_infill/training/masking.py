"""The forward process: which tokens of a training example are masked.

Source: Fujinuma and Sakaguchi (arXiv:2604.03677), section 3.1 (full-sequence) and appendix G (response-only).
"""

from __future__ import annotations

from random import Random
from typing import Literal

import torch
from torch import Tensor

Objective = Literal["fs", "ro", "rest"]
"""Full-sequence masking; response-only masking; or the rest of the response masked, from anywhere on."""


def full_sequence(maskable: Tensor, generator: torch.Generator, t: float | None = None) -> Tensor:
    """Mask exactly floor(t * n) of the n maskable tokens; at least one.

    Differs from the paper: a draw of zero masks, which has no loss, masks one token; and n counts what may be
    masked, not headers and the like.

    Args:
        maskable: bool, [length].
        generator: Source of the noise.
        t: Noise level in [0, 1); None draws it uniformly.

    Returns:
        bool, [length].

    Example:
        >>> maskable = torch.tensor([False, True, True, True])
        >>> masked = full_sequence(maskable, torch.Generator().manual_seed(0))
        >>> bool((masked <= maskable).all()), int(masked.sum()) in (1, 2)
        (True, True)
    """
    ratio = _uniform(generator) if t is None else t
    return _chosen(maskable, max(1, int(ratio * int(maskable.sum()))), generator)


def response_only(response: Tensor, generator: torch.Generator, t: float | None = None) -> Tensor:
    """Mask each response token with probability t; the prompt stays clean.

    Differs from the paper: a draw of zero masks, which has no loss, masks one token.

    Args:
        response: bool, [length]; the maskable tokens of the response.
        generator: Source of the noise.
        t: Noise level in (0, 1]; None draws it uniformly.

    Returns:
        bool, [length].
    """
    ratio = 1 - _uniform(generator) if t is None else t
    masked = (torch.rand(response.shape, generator=generator, dtype=torch.float64) < ratio) & response
    if not masked.any():
        positions = response.nonzero()[:, 0]
        masked[positions[torch.randint(len(positions), (), generator=generator)]] = True
    return masked


def exact_count(maskable: Tensor, generator: torch.Generator, t: float | None = None) -> Tensor:
    """Mask k of the n maskable tokens, k uniform on 1 to n: their losses, each times n / k, bound -log p.

    Source: LLaDA (arXiv:2502.09992), Eq. 6; the expectation of its 1/t over independent tokens, with less
    variance.

    Args:
        maskable: bool, [length].
        generator: Source of the noise.
        t: Noise level in [0, 1), of which k is the floor of t * n, and 1; None draws it uniformly.

    Returns:
        bool, [length].
    """
    ratio = _uniform(generator) if t is None else t
    return _chosen(maskable, int(ratio * int(maskable.sum())) + 1, generator)


def rest(response: Tensor, generator: torch.Generator) -> Tensor:
    """Mask the response from one of its tokens on, any as likely: what is left while it is written in order.

    Args:
        response: bool, [length]; the maskable tokens of the response.
        generator: Source of the noise.

    Returns:
        bool, [length].

    Example:
        >>> rest(torch.tensor([False, True, True, True]), torch.Generator().manual_seed(0)).tolist()
        [False, False, False, True]
    """
    first = torch.randint(int(response.sum()), (), generator=generator)
    return response & (response.cumsum(0) > first)


def stratified(count: int, random: Random) -> list[float]:
    """Noise levels spread evenly over (0, 1), one in each of `count` equal parts, in random order.

    Each is uniform by itself; together they vary less than independent draws, and so does the loss.

    Source: LLaDA (arXiv:2502.09992), App. B.5, which spreads them when it estimates likelihoods.

    Example:
        >>> sorted(int(4 * t) for t in stratified(4, Random(0)))
        [0, 1, 2, 3]
    """
    offset = random.random()
    levels = [(part + offset) / count for part in range(count)]
    random.shuffle(levels)
    return levels


def _chosen(maskable: Tensor, count: int, generator: torch.Generator) -> Tensor:
    chosen = torch.randperm(int(maskable.sum()), generator=generator)[:count]
    masked = torch.zeros_like(maskable)
    masked[maskable.nonzero()[chosen, 0]] = True
    return masked


def _uniform(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator, dtype=torch.float64))
