"""A program with the instructions of one candidate or another: made once for each, while it competes."""

from __future__ import annotations

import threading
from collections import OrderedDict

import dspy

from dspy_diffusion_infill.prompts.candidates import Candidate, key
from dspy_diffusion_infill.prompts.program import all_predictors, copy_program, with_instructions
from dspy_diffusion_infill.search.called import listen

NUM_KEPT = 20
"""Programs, each with its own copy of the data it holds: enough for 16 fillings and what is there.
To make one takes as long as to run several."""
ROLLOUTS = 1000
"""Between the `rollout_id` of two repeats: modules such as Refine count on from the one they find."""


class Variants:
    """Copies of a program. None of their LMs takes the answer of another repeat from the cache.

    Args:
        program: Not modified.
        lost: Set if a predictor of theirs is called where no run can be told.
    """

    def __init__(self, program: dspy.Module, lost: threading.Event) -> None:
        self._program, self._lost = program, lost
        self._made: OrderedDict[object, dspy.Module] = OrderedDict()

    def get(self, candidate: Candidate, repeat: int) -> dspy.Module:
        """The program with a candidate's instructions, for the first run on an example (0) or a later one."""
        which = (key(candidate), repeat)
        if which not in self._made:
            self._made[which] = self._make(candidate, repeat)
        self._made.move_to_end(which)
        if len(self._made) > NUM_KEPT:
            self._made.popitem(last=False)
        return self._made[which]

    def _make(self, candidate: Candidate, repeat: int) -> dspy.Module:
        program = with_instructions(self._program, candidate)
        for predictor in all_predictors(program):
            predictor.lm = lm_for(predictor.lm, repeat)
        listen(program, self._lost)
        return program


def lm_for(lm: dspy.BaseLM | None, repeat: int) -> dspy.BaseLM | None:
    """The LM that answers a repeat; the very same for the first run."""
    return lm.copy(rollout_id=repeat * ROLLOUTS) if lm is not None and repeat else lm


def asking_anew(program: dspy.Module) -> dspy.Module:
    """A copy of a program, whose LMs answer nothing from the cache."""
    copied = copy_program(program)
    for predictor in all_predictors(copied):
        predictor.lm = without_cache(predictor.lm)
    return copied


def without_cache(lm: dspy.BaseLM | None) -> dspy.BaseLM | None:
    """The LM that asks its service every time; the very same if it does."""
    return lm.copy(cache=False) if lm is not None and getattr(lm, "cache", False) else lm
