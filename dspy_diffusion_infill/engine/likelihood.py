"""How likely a text is to a masked diffusion LM: an upper bound of its negative log-likelihood."""

from __future__ import annotations

import math
import random
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal, TypeVar

import torch

from dspy_diffusion_infill.engine.model import MaskPredictor
from dspy_diffusion_infill.engine.rows import pad, token_batches
from dspy_diffusion_infill.engine.vocabulary import Vocabulary, check_length
from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.prompts.canvas import Message

Estimator = Literal["exact_count", "log_linear"]
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Target:
    """A sequence, some of whose tokens are to be scored given the others."""

    ids: Sequence[int]
    scored: Sequence[int]
    """Positions, at least one."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A Monte Carlo estimate of the negative evidence lower bound.

    Example:
        >>> round(Estimate(nelbo=2 * math.log(5), standard_error=0.1, num_tokens=2).perplexity, 6)
        5.0
    """

    nelbo: float
    """Of all scored tokens together, in nats."""
    standard_error: float
    """Of `nelbo`, in nats; infinite for a single sample of several tokens."""
    num_tokens: int

    @property
    def perplexity(self) -> float:
        """Per scored token: exp(nelbo / num_tokens); infinite beyond the largest float."""
        try:
            return math.exp(self.nelbo / self.num_tokens)
        except OverflowError:
            return math.inf


@dataclass(frozen=True, slots=True)
class _Sample:
    target: int
    masked: list[int]
    weight: float


def text_target(vocabulary: Vocabulary, text: str) -> Target:
    """A text's own tokens where instructions stand: as the system message of a conversation."""
    layout = vocabulary.lay_out([Message.text("system", text)])
    return Target(layout.ids, layout.contents[-1])


def response_target(vocabulary: Vocabulary, prompt: Sequence[Message], response: str) -> Target:
    """The response's own tokens, given the prompt, in the model's chat format."""
    layout = vocabulary.lay_out([*prompt, Message.text("assistant", response)])
    return Target(layout.ids, layout.contents[-1])


def estimate_nelbo(
    model: MaskPredictor,
    targets: Sequence[Target],
    *,
    num_samples: int = 128,
    estimator: Estimator = "exact_count",
    seed: int = 0,
) -> list[Estimate]:
    """Bound the negative log-likelihood of each target's scored tokens, given its other tokens.

    Both estimators have the same expectation. "exact_count" masks exactly l tokens, l uniform on 1 to L and
    stratified over the samples, and weighs their cross-entropy by L / l: use it for scores. "log_linear" is
    the paper's diffusion perplexity: noise sigma(t) = 10 t, t uniform, each token masked with probability
    1 - exp(-sigma), weight 10 / (exp(10 t) - 1); it varies far more, and leaves out mask rates above
    1 - exp(-10).

    Source: LLaDA (arXiv:2502.09992), Eq. 6 and App. B.5, for "exact_count", stratified as in its
    `get_log_likelihood.py`; arXiv:2604.03677, App. B, for "log_linear". Differs: there the formula reads
    P(X_t | X_0), which is a slip for log p(X_0 | X_t) at the masked positions.

    Args:
        model: The mask predictor.
        targets: Sequences and the positions to score.
        num_samples: Draws per target; a single scored token needs, and gets, one under "exact_count".
        estimator: See above.
        seed: Of the draws; targets with as many scored tokens are masked alike, which steadies comparisons.

    Returns:
        One estimate per target, in order.

    Raises:
        CanvasError: If a target is longer than the model's context.
        SettingsError: If `num_samples` or `estimator` is not valid, or a target has nothing to score.

    Example:
        >>> from dspy_diffusion_infill.engine.model import ToyModel
        >>> toy = ToyModel(answer=torch.tensor([5]), vocab_size=9, mask_token_id=8)
        >>> round(estimate_nelbo(toy, [Target([5], [0])])[0].nelbo, 3)  # log(exp(2.6) + 8) - 2.6
        0.466
    """
    return _finish(nelbo_steps(model, targets, num_samples=num_samples, estimator=estimator, seed=seed))


def nelbo_steps(
    model: MaskPredictor, targets: Sequence[Target], *, num_samples: int, estimator: Estimator, seed: int
) -> Generator[None, None, list[Estimate]]:
    """As `estimate_nelbo`, in steps of a forward pass each, between which other work may be done.

    All draws are made before the first step.
    """
    _check(model, targets, num_samples, estimator)
    samples = [
        _Sample(index, masked, weight)
        for index, target in enumerate(targets)
        for masked, weight in _draw(target, num_samples, estimator, seed)
    ]
    return _nelbo(model, targets, samples)


def _nelbo(
    model: MaskPredictor, targets: Sequence[Target], samples: Sequence[_Sample]
) -> Generator[None, None, list[Estimate]]:
    terms: list[list[float]] = [[] for _ in targets]
    losses = yield from _cross_entropies(model, targets, samples)
    for sample, loss in zip(samples, losses, strict=True):
        terms[sample.target].append(sample.weight * loss)
    return [_estimate(each, len(target.scored)) for each, target in zip(terms, targets, strict=True)]


def masked_nll(model: MaskPredictor, targets: Sequence[Target]) -> list[float]:
    """Mean negative log probability of each target's scored tokens, all of them masked, in nats.

    One pass a target, where `estimate_nelbo` takes many: enough to rank windows by.

    Raises:
        CanvasError: If a target is longer than the model's context.

    Example:
        >>> from dspy_diffusion_infill.engine.model import ToyModel
        >>> toy = ToyModel(answer=torch.tensor([5]), vocab_size=9, mask_token_id=8)
        >>> [round(one, 3) for one in masked_nll(toy, [Target([5], [0]), Target([4], [0])])]
        [0.466, 3.066]
    """
    return _finish(masked_nll_steps(model, targets))


def masked_nll_steps(model: MaskPredictor, targets: Sequence[Target]) -> Generator[None, None, list[float]]:
    """As `masked_nll`, in steps of a forward pass each, between which other work may be done."""
    _check(model, targets, 1, "exact_count")
    samples = [
        _Sample(index, list(target.scored), 1 / len(target.scored)) for index, target in enumerate(targets)
    ]
    losses = yield from _cross_entropies(model, targets, samples)
    return [sample.weight * loss for sample, loss in zip(samples, losses, strict=True)]


def _finish(steps: Generator[None, None, Result]) -> Result:
    """Take all steps at once."""
    while True:
        try:
            next(steps)
        except StopIteration as finished:
            return finished.value


def _check(model: MaskPredictor, targets: Sequence[Target], num_samples: int, estimator: Estimator) -> None:
    if num_samples < 1:
        raise SettingsError(f"num_samples must be at least 1; got {num_samples}.")
    if estimator not in ("exact_count", "log_linear"):
        raise SettingsError(f"estimator must be 'exact_count' or 'log_linear'; got {estimator!r}.")
    for target in targets:
        check_length(len(target.ids), model.context_length)
        if not target.scored:
            raise SettingsError("A target must have at least one scored position; got none.")


def _draw(target: Target, num_samples: int, estimator: Estimator, seed: int) -> list[tuple[list[int], float]]:
    """Masked positions and the weight of their cross-entropy, sample by sample."""
    draw = random.Random(seed)
    length = len(target.scored)
    if estimator == "log_linear":
        times = [1 - draw.random() for _ in range(num_samples)]
        return [
            ([at for at in target.scored if draw.random() < -math.expm1(-10 * t)], 10 / math.expm1(10 * t))
            for t in times
        ]
    num_samples = 1 if length == 1 else num_samples
    offset = draw.random()
    counts = [int((index + offset) / num_samples * length) + 1 for index in range(num_samples)]
    return [(draw.sample(target.scored, count), length / count) for count in counts]


@torch.inference_mode()
def _cross_entropies(
    model: MaskPredictor, targets: Sequence[Target], samples: Sequence[_Sample]
) -> Generator[None, None, list[float]]:
    """Of the masked tokens of each sample, summed, in nats."""
    losses = [0.0] * len(samples)
    rows = [targets[sample.target].ids for sample in samples]
    for batch in token_batches(rows, model.device):
        ids, attention_mask = pad([rows[index] for index in batch], model.device)
        masked = torch.zeros_like(attention_mask)
        for row, index in enumerate(batch):
            masked[row, samples[index].masked] = True
        if masked.any():
            logits = model.logits(ids.masked_fill(masked, model.mask_token_id), attention_mask, masked)
            each = logits.logsumexp(1) - logits.gather(1, ids[masked][:, None])[:, 0]
            for index, loss in zip(batch, each.split(masked.sum(1).tolist()), strict=True):
                losses[index] = float(loss.double().sum())
        yield
    return losses


def _estimate(terms: list[float], num_tokens: int) -> Estimate:
    """Stratified samples err less than independent ones, so that their standard error is an upper bound."""
    if len(terms) > 1:
        return Estimate(fmean(terms), stdev(terms) / math.sqrt(len(terms)), num_tokens)
    return Estimate(terms[0], 0.0 if num_tokens == 1 else math.inf, num_tokens)
