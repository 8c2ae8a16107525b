"""Cells of the embedded task, one at a time on each core: much quicker than all cores on one cell."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from itertools import product
from multiprocessing import get_context
from typing import Any, TypeVar

import dspy
import torch

from dspy_diffusion_infill.demo import task_lm
from dspy_diffusion_infill.engine.infiller import DiffusionInfiller
from dspy_diffusion_infill.engine.model import load
from dspy_diffusion_infill.prompts.last_line import LastLineAdapter

Found = TypeVar("Found")


def run_cells(run: Callable[..., Found], *axes: Sequence[Any], **same: Any) -> Iterator[Found]:
    """What a function finds in every cell, in order, with the embedded model as DSPy's LM.

    Args:
        run: Of a module, since processes of their own call it.
        axes: Its positional arguments: a cell has one of each.
        same: Its other arguments, the same in every cell.
    """
    places = zip(*product(*axes), strict=True)
    with ProcessPoolExecutor(mp_context=get_context("spawn"), initializer=_use_one_core) as pool:
        yield from pool.map(partial(_run, run, same), *places)


@cache
def embedded() -> DiffusionInfiller:
    """The embedded model as infiller, loaded once a process."""
    return DiffusionInfiller(load("embedded"))


def _use_one_core() -> None:
    logging.getLogger("dspy").setLevel(logging.ERROR)  # it warns of every answer that ends at its last token
    torch.set_num_threads(1)


def _run(run: Callable[..., Found], same: dict[str, Any], *place: Any) -> Found:
    with dspy.context(lm=task_lm(None), adapter=LastLineAdapter()):
        return run(*place, **same)
