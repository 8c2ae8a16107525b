"""How many masked tokens each denoising step commits."""

from __future__ import annotations

from collections.abc import Sequence

from dspy_diffusion_infill.errors import SettingsError


def commit_counts(num_masked: int, num_steps: int | None = None) -> list[int]:
    """Spread `num_masked` commits evenly over the denoising steps.

    The counts sum to `num_masked`, each is at least one, and no two differ by more than one. More steps than
    masked tokens would leave steps that commit nothing, so the number of steps is clamped to `num_masked`.

    Source: `get_num_transfer_tokens`, LLaDA (arXiv:2502.09992), linear noise schedule. Differs in the clamp:
    the reference spends a forward pass on a step that commits nothing.

    Args:
        num_masked: Tokens to commit in all.
        num_steps: Denoising steps; None for one per token.

    Raises:
        SettingsError: If either number is below one.

    Example:
        >>> commit_counts(8, 3)
        [3, 3, 2]
        >>> commit_counts(2, 5)
        [1, 1]
    """
    _check(num_masked=num_masked, num_steps=num_steps)
    steps = min(num_masked, num_steps or num_masked)
    each, extra = divmod(num_masked, steps)
    return [each + (step < extra) for step in range(steps)]


def block_counts(
    num_masked: int, num_steps: int | None = None, block_length: int | None = None
) -> list[list[int]]:
    """Plan semi-autoregressive denoising: the commits of each step, block by block from left to right.

    Blocks hold `block_length` masked tokens each, the last one what is left; the steps are spread over the
    blocks as evenly as they go, at least one to each.

    Source: semi-autoregressive remasking, LLaDA (arXiv:2502.09992), App. B.4. Differs in counting masked
    tokens rather than places, so that masks may lie anywhere.

    Args:
        num_masked: Tokens to commit in all.
        num_steps: Denoising steps over all blocks; None for one per token.
        block_length: Masked tokens per block; None for one block.

    Raises:
        SettingsError: If a number is below one.

    Example:
        >>> block_counts(10, 5, block_length=4)
        [[2, 2], [2, 2], [2]]
    """
    _check(num_masked=num_masked, num_steps=num_steps, block_length=block_length)
    sizes = _block_sizes(num_masked, block_length or num_masked)
    if num_steps is None:
        return [commit_counts(size) for size in sizes]
    steps = commit_counts(max(num_steps, len(sizes)), len(sizes))
    return [commit_counts(size, share) for size, share in zip(sizes, steps, strict=True)]


def _check(**numbers: int | None) -> None:
    for name, number in numbers.items():
        if number is not None and number < 1:
            raise SettingsError(f"{name} must be at least 1; got {number}.")


def _block_sizes(num_masked: int, block_length: int) -> Sequence[int]:
    return [min(block_length, num_masked - start) for start in range(0, num_masked, block_length)]
