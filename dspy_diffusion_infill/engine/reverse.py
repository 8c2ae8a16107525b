"""One batch of the reverse process: rows of token ids whose masks are committed step by step."""

from __future__ import annotations

import math
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dspy_diffusion_infill.engine.cache import Passes
from dspy_diffusion_infill.engine.model import MaskPredictor
from dspy_diffusion_infill.engine.rows import pad, stacked
from dspy_diffusion_infill.engine.schedule import block_counts
from dspy_diffusion_infill.prompts.canvas import Denoising


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """How masks are committed, in every detail."""

    denoising: Denoising = Denoising()  # noqa: RUF009  (frozen)
    """What a user sets."""
    block_length: int | None = None
    """Masked tokens per semi-autoregressive block, left to right; None for one block."""
    stop_ids: frozenset[int] = frozenset()
    """Tokens that end an answer: allowed here, and what follows the first one is not computed."""


@dataclass(frozen=True, slots=True)
class Task:
    """One canvas to be filled once."""

    ids: Sequence[int]
    """Token ids, with the model's mask token where text is wanted."""
    seed: int
    """Of this task's own random numbers."""
    num_context: int = 0
    """Tokens at the end that are few-shot context; they hold no masks."""

    @property
    def context(self) -> tuple[int, ...]:
        """Those tokens."""
        return tuple(self.ids[len(self.ids) - self.num_context :])


@dataclass(frozen=True, slots=True)
class Filled:
    """A canvas without masks."""

    ids: list[int]
    log_likelihood: float
    """Sum over commits of the log probability among allowed tokens when committed, in nats."""
    num_passes: int
    """Forward passes that this canvas took part in."""
    probabilities: tuple[float, ...] = ()
    """Of each token that was a mask, from left to right, among allowed tokens when it was committed; 0 where
    nothing was computed, behind a stop token."""


COLDEST = 1e-30
"""Below this temperature the likeliest token is taken: logits divided by less may be no float32."""
_TENSORS = ("ids", "attention_mask", "masked", "fillable", "block", "probabilities")
_LISTS = ("task", "lengths", "counts", "noise", "log_likelihood", "num_passes")


class Rows:
    """The unfinished rows of a batch. Tensors are [rows, length] unless said otherwise."""

    def __init__(
        self, model: MaskPredictor, passes: Passes, tasks: Sequence[Task], decoding: Decoding
    ) -> None:
        self.passes = passes
        self.how = decoding.denoising
        device = model.device
        self.task = list(range(len(tasks)))
        self.lengths = [len(task.ids) for task in tasks]
        self.ids, self.attention_mask = pad([task.ids for task in tasks], device)
        self.masked = (self.ids == model.mask_token_id) & self.attention_mask
        self.fillable = self.masked.clone()
        block_length = decoding.block_length or self.ids.shape[1]
        self.block = (self.masked.cumsum(1) - 1).clamp(min=0) // block_length
        self.counts = [
            block_counts(int(n), self.how.steps, decoding.block_length) for n in self.masked.sum(1)
        ]
        self.noise = [torch.Generator(_noise_device(device)).manual_seed(task.seed) for task in tasks]
        self.log_likelihood = [0.0] * len(tasks)
        self.num_passes = [0] * len(tasks)
        self.probabilities = torch.zeros(self.ids.shape, device=device)
        self.banned = torch.tensor(sorted(model.banned_ids - decoding.stop_ids), device=device)
        self.stops = torch.tensor(sorted(decoding.stop_ids), device=device)

    def step(self) -> None:
        """One forward pass; commits at least one token in every row."""
        first_open = torch.where(self.masked, self.block, self.block.max() + 1).amin(1, keepdim=True)
        eligible = self.masked & (self.block == first_open)
        logits = self.passes.logits(self.ids, self.attention_mask, eligible, self.task)
        logits[:, self.banned] = -math.inf
        per_row = eligible.sum(1).tolist()
        tokens = self._choose(logits, per_row)
        log_probs = logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(1)
        commit = self._surest(
            eligible, self._confidence(logits, log_probs, per_row), first_open[:, 0].tolist()
        )
        if self.how.threshold is not None:
            commit |= _spread(log_probs, eligible, -math.inf) >= math.log(self.how.threshold)
        self.ids = torch.where(commit, _spread(tokens, eligible, 0), self.ids)
        self.masked = self.masked & ~commit
        gained = torch.where(commit, _spread(log_probs, eligible, 0.0), 0.0).sum(1).tolist()
        self.log_likelihood = [total + gain for total, gain in zip(self.log_likelihood, gained, strict=True)]
        self.probabilities = torch.where(commit, _spread(log_probs.exp(), eligible, 0.0), self.probabilities)
        self.num_passes = [number + 1 for number in self.num_passes]

    def take_finished(self) -> Iterator[tuple[int, Filled]]:
        """Hand out the rows that nothing remains to be computed for, by task index, and drop them."""
        stopped = (self.fillable & ~self.masked & torch.isin(self.ids, self.stops)).cumsum(1) > 0
        unfinished = (self.masked & ~stopped).any(1)
        if unfinished.all():
            return
        for row in (~unfinished).nonzero()[:, 0].tolist():
            # What is still masked follows a stop token, and reads as one.
            filler = min(self.stops.tolist(), default=0)
            ids = self.ids[row].masked_fill(self.masked[row], filler)[: self.lengths[row]].tolist()
            probabilities = tuple(self.probabilities[row][self.fillable[row]].tolist())
            yield self.task[row], Filled(ids, self.log_likelihood[row], self.num_passes[row], probabilities)
        self._keep(unfinished)

    def compact(self) -> list[int]:
        """Have the passes forget rows that were dropped; returns the old task numbers of the new 0, 1, ..."""
        before = self.task
        self.passes.keep(before)
        self.task = list(range(len(before)))
        return before

    def join(self, other: Rows) -> None:
        """Take in the rows of another batch of the same decoding; both are compact, and have taken a step."""
        self.passes.join(other.passes)
        for name in _TENSORS:
            setattr(self, name, stacked(getattr(self, name), getattr(other, name)))
        for name in _LISTS:
            setattr(self, name, [*getattr(self, name), *getattr(other, name)])
        self.task = list(range(len(self.task)))

    def drop(self, tasks: Container[int]) -> None:
        """Drop the rows of some tasks, unfinished."""
        self._keep(torch.tensor([task not in tasks for task in self.task], device=self.ids.device))

    def _keep(self, rows: Tensor) -> None:
        for name in _TENSORS:
            setattr(self, name, getattr(self, name)[rows])
        kept = rows.nonzero()[:, 0].tolist()
        for name in _LISTS:
            setattr(self, name, [getattr(self, name)[row] for row in kept])

    def _choose(self, logits: Tensor, per_row: list[int]) -> Tensor:
        """A token for each scored position: the likeliest, or one drawn by the Gumbel-max trick."""
        if self.how.temperature < COLDEST:
            return logits.argmax(1)
        logits = keep_likeliest(logits / self.how.temperature, self.how.top_p, self.how.top_k)
        chosen = []
        for scores, noise in zip(logits.split(per_row), self.noise, strict=True):
            # float64: lower precision changes the temperature in effect (arXiv:2409.02908).
            scores = scores.to(noise.device, torch.float64)
            uniform = torch.rand(scores.shape, dtype=torch.float64, device=noise.device, generator=noise)
            chosen.append((scores - (-uniform.log()).log()).argmax(1))
        return torch.cat(chosen).to(logits.device)

    def _confidence(self, logits: Tensor, log_probs: Tensor, per_row: list[int]) -> Tensor:
        """How early each scored position is to be committed; `log_probs` are those of the chosen tokens."""
        remasking = self.how.remasking
        if remasking == "low_confidence":
            return log_probs
        if remasking == "entropy":
            return torch.special.entr(logits.softmax(1)).sum(1).neg()
        if remasking == "top_k_margin":
            best, second = logits.softmax(1).topk(2).values.unbind(1)
            return best - second
        drawn = [
            torch.rand(n, device=g.device, generator=g) for n, g in zip(per_row, self.noise, strict=True)
        ]
        return torch.cat(drawn).to(log_probs.device)

    def _surest(self, eligible: Tensor, confidence: Tensor, block: list[int]) -> Tensor:
        """The step's quota of eligible positions in each row, surest first."""
        quota = [counts[current].pop(0) for counts, current in zip(self.counts, block, strict=True)]
        order = _spread(confidence, eligible, -math.inf).argsort(dim=1, descending=True, stable=True)
        return eligible & (order.argsort(dim=1) < torch.tensor(quota, device=eligible.device)[:, None])


def keep_likeliest(logits: Tensor, top_p: float | None, top_k: int | None) -> Tensor:
    """Logits with -inf for all but the likeliest tokens of each row; `top_p` is applied first, as in Dream.

    Args:
        logits: [rows, vocabulary].
        top_p: Keep the likeliest tokens whose probabilities first reach this sum; None keeps all.
        top_k: Keep this many, and those that tie with the last of them; None keeps all.

    Example:
        >>> logits = torch.tensor([[0.5, 0.3, 0.2]]).log()
        >>> keep_likeliest(logits, 0.7, None).isfinite().tolist()
        [[True, True, False]]
    """
    if top_p is not None:
        ordered, order = logits.sort(dim=1, descending=True)
        dropped = ordered.softmax(1).cumsum(1).roll(1, 1) >= top_p
        dropped[:, 0] = False
        logits = logits.masked_fill(dropped.gather(1, order.argsort(1)), -math.inf)
    if top_k is not None:
        least = logits.topk(min(top_k, logits.shape[1])).values[:, -1:]
        logits = logits.masked_fill(logits < least, -math.inf)
    return logits


def _spread(values: Tensor, where: Tensor, other: float) -> Tensor:
    """Values laid out at the True places of `where`, and `other` elsewhere: [rows, length]."""
    out = torch.full(where.shape, other, dtype=values.dtype, device=values.device)
    out[where] = values
    return out


def _noise_device(device: torch.device) -> torch.device:
    """Where noise is drawn: MPS has no float64."""
    return torch.device("cpu") if device.type == "mps" else device
