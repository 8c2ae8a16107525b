"""Denoise canvases: mask tokens become text, many canvases at a time."""

from __future__ import annotations

import functools
import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import cast

import torch

from dspy_diffusion_infill.engine.cache import (
    CachingPredictor,
    Contexts,
    FullPasses,
    Passes,
    choose_mode,
)
from dspy_diffusion_infill.engine.guidance import GuidedPasses
from dspy_diffusion_infill.engine.model import MaskPredictor
from dspy_diffusion_infill.engine.reverse import Decoding, Filled, Rows, Task
from dspy_diffusion_infill.engine.rows import token_batches
from dspy_diffusion_infill.engine.window import WindowPasses
from dspy_diffusion_infill.errors import CanvasError, SettingsError
from dspy_diffusion_infill.prompts.canvas import CacheMode, Denoising

Run = Callable[[Sequence[Task], Decoding], Sequence[Filled]]
"""Denoises tasks; answers have their order."""


def infill(
    model: MaskPredictor,
    canvases: Sequence[Sequence[int]],
    *,
    num_candidates: int = 1,
    decoding: Decoding = Decoding(),  # noqa: B008  (frozen)
    seed: int = 0,
    num_context: Sequence[int] | None = None,
    contexts: Contexts | None = None,
    run: Run | None = None,
) -> list[list[Filled]]:
    """Fill every mask token of every canvas, `num_candidates` times over, in shared batches.

    Two things always hold, in MDLM's words: *carry-over unmasking* (a given or committed token never changes)
    and *zero masking probability* (no mask token survives). Equal canvas, seed and candidate index get equal
    noise in any batch. Where nothing is random, candidates are equal, and computed once.

    Source: low-confidence and random remasking, semi-autoregressive blocks, LLaDA (arXiv:2502.09992),
    `generate.py`; threshold, Fast-dLLM (arXiv:2505.22618). Differs: masks may lie anywhere; special tokens
    are never predicted inside a window, and probabilities are among the allowed tokens; steps are clamped to
    the masks; noise is drawn at masked positions only.

    Args:
        model: The mask predictor.
        canvases: Token ids, of any lengths, masks anywhere. Not modified.
        num_candidates: Fillings per canvas.
        decoding: How masks are committed.
        seed: Of the token choice.
        num_context: Of each canvas, the tokens at its end that are few-shot context; None for none at all.
        contexts: What is remembered of contexts from call to call; None for nothing.
        run: Denoises the tasks in place of `denoise`, as a server does that shares batches between callers.

    Returns:
        For each canvas, in order, its fillings.

    Raises:
        CanvasError: If a canvas holds no mask token, or does not fit the model's context.
        SettingsError: If `num_candidates` is below 1.

    Example:
        >>> from dspy_diffusion_infill.prompts.canvas import Denoising
        >>> from dspy_diffusion_infill.engine.model import ToyModel
        >>> toy = ToyModel(answer=torch.tensor([5, 6, 7]), vocab_size=9, mask_token_id=8)
        >>> decoding = Decoding(denoising=Denoising(temperature=0.0, steps=2))
        >>> infill(toy, [[5, 8, 8]], decoding=decoding)[0][0].ids
        [5, 6, 7]
    """
    if num_candidates < 1:
        raise SettingsError(f"num_candidates must be at least 1; got {num_candidates}.")
    random = decoding.denoising.temperature > 0 or decoding.denoising.remasking == "random"
    copies = num_candidates if random else 1
    tasks = [
        Task(ids, row_seed(seed, ids, index), tail)
        for ids, tail in zip(canvases, num_context or [0] * len(canvases), strict=True)
        for index in range(copies)
    ]
    filled = run(tasks, decoding) if run else denoise(model, tasks, decoding, contexts)
    groups = [list(filled[start : start + copies]) for start in range(0, len(filled), copies)]
    return groups if random else [group * num_candidates for group in groups]


def denoise(
    model: MaskPredictor, tasks: Sequence[Task], decoding: Decoding, contexts: Contexts | None = None
) -> list[Filled]:
    """Run the reverse process on every task; see `infill`.

    Canvases of like length share batches of bounded size; one that does not fit the device's memory is
    halved.

    Raises:
        SettingsError: If the model cannot be run in the cache mode that is asked for.
    """
    for task in tasks:
        check_canvas(model, task.ids)
    how = replace(decoding.denoising, cache=choose_mode(model, decoding.denoising.cache))
    contexts = contexts or Contexts()
    filled: dict[int, Filled] = {}
    for context, members in plan(tasks, model.device, how.cache):
        start = functools.partial(start_passes, model, how, contexts, context)
        done = _denoise_fitting(model, start, [without(tasks[index], context) for index in members], decoding)
        filled.update({index: with_context(one, context) for index, one in zip(members, done, strict=True)})
    return [filled[index] for index in range(len(tasks))]


def plan(
    tasks: Sequence[Task], device: torch.device, mode: CacheMode
) -> Iterator[tuple[tuple[int, ...], list[int]]]:
    """Divide tasks into batches of bounded size, all tasks of one canvas in one batch.

    Returns:
        For each batch the context that is encoded apart, or (), and the indices of its tasks.
    """
    sharing: defaultdict[tuple[int, ...], defaultdict[tuple[int, ...], list[int]]]
    sharing = defaultdict(lambda: defaultdict(list))
    for index, task in enumerate(tasks):
        context = task.context if mode == "context" else ()
        sharing[context][tuple(without(task, context).ids)].append(index)
    for context, alike in sharing.items():
        canvases = list(alike)
        for batch in token_batches(canvases, device, len(context)):
            yield context, [index for canvas in batch for index in alike[canvases[canvas]]]


def without(task: Task, context: tuple[int, ...]) -> Task:
    """The task without the context at its end."""
    return replace(task, ids=task.ids[: len(task.ids) - len(context)], num_context=0) if context else task


def with_context(filled: Filled, context: tuple[int, ...]) -> Filled:
    """What was filled, and the context after it."""
    return replace(filled, ids=[*filled.ids, *context])


def start_passes(
    model: MaskPredictor, how: Denoising, contexts: Contexts, context: tuple[int, ...]
) -> Passes:
    """The passes of a new batch, whose cache mode is settled."""
    passes: Passes = FullPasses(model)
    if how.cache != "exact":
        caching = cast(CachingPredictor, model)
        passes = WindowPasses(caching, contexts.encoded(caching, context) if context else None)
    return GuidedPasses(model, passes, how.guidance) if how.guidance else passes


def row_seed(seed: int, ids: Sequence[int], index: int) -> int:
    """The seed of one row, from the run's seed, the canvas's content and the candidate's index alone."""
    content = f"{seed} {index} {' '.join(map(str, ids))}"
    return int.from_bytes(hashlib.blake2b(content.encode(), digest_size=8).digest()) >> 1


def check_canvas(model: MaskPredictor, ids: Sequence[int]) -> None:
    """Refuse a canvas without masks, or longer than the model's context.

    Raises:
        CanvasError: If it is one.
    """
    if model.mask_token_id not in ids:
        raise CanvasError("A canvas must hold at least one mask token; got none.")
    if len(ids) > model.context_length:
        raise CanvasError(f"A canvas must have at most {model.context_length} tokens; got {len(ids)}.")


@torch.inference_mode()
def _denoise_fitting(
    model: MaskPredictor, start: Callable[[], Passes], tasks: list[Task], decoding: Decoding
) -> list[Filled]:
    try:
        return _denoise_batch(Rows(model, start(), tasks, decoding))
    except torch.OutOfMemoryError:
        if len(tasks) == 1:
            raise
    half = len(tasks) // 2
    return [
        *_denoise_fitting(model, start, tasks[:half], decoding),
        *_denoise_fitting(model, start, tasks[half:], decoding),
    ]


def _denoise_batch(rows: Rows) -> list[Filled]:
    filled: dict[int, Filled] = {}
    while len(rows.task):
        rows.step()
        filled.update(rows.take_finished())
    return [filled[index] for index in range(len(filled))]
