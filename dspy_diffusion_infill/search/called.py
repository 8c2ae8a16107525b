"""Which predictors a run called: with other instructions for the rest it would have run the same."""

from __future__ import annotations

import threading
from typing import Any

import dspy
from dspy.utils.callback import ACTIVE_CALL_ID, BaseCallback

from dspy_diffusion_infill.prompts.program import all_predictors

Called = frozenset[str]
"""Names of predictors."""


class Calls(BaseCallback):
    """Hears what one run calls, in every thread that has DSPy's context."""

    def __init__(self) -> None:
        self._names, self._ids, self._asked = set[str](), set[str](), set[str]()
        self._known = True
        self._threads = set[int]()

    @property
    def in_threads(self) -> bool:
        """Whether LMs were called from several threads, whose order is chance."""
        return len(self._threads) > 1

    @property
    def names(self) -> Called | None:
        """The predictors that were called; None if an LM was called by others, or some call was not heard."""
        heard = self._known and self._ids and self._ids == self._asked
        return frozenset(self._names) if heard else None

    def hear(self, name: str | None, call_id: str) -> None:
        """One of the program's predictors is called; a frozen one has no name."""
        self._ids.add(call_id)
        if name is not None:
            self._names.add(name)

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """An LM is called: by a predictor, or by a copy or code of the program, whatever that has read."""
        self._threads.add(threading.get_ident())
        caller = ACTIVE_CALL_ID.get()
        if caller in self._ids:
            self._asked.add(caller)
        else:
            self._known = False

    def on_module_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """DSPy before 3.2 takes LMs that are not its own for modules."""
        if isinstance(instance, dspy.BaseLM):
            self.on_lm_start(call_id, instance, inputs)


class Ear(BaseCallback):
    """Tells the run under way that a predictor is called.

    Args:
        name: Of the predictor; None if it is frozen.
        lost: Set if it was called where no run can be told, in a thread without DSPy's context.
    """

    def __init__(self, name: str | None, lost: threading.Event) -> None:
        self._name, self._lost = name, lost

    def on_module_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """The predictor is called."""
        run = next((one for one in dspy.settings.callbacks if isinstance(one, Calls)), None)
        if run is None:
            self._lost.set()
        else:
            run.hear(self._name, call_id)


def listen(program: dspy.Module, lost: threading.Event) -> None:
    """Give each of a program's predictors an ear."""
    names = {id(predictor): name for name, predictor in program.named_predictors()}
    for predictor in all_predictors(program):
        predictor.callbacks = [*predictor.callbacks, Ear(names.get(id(predictor)), lost)]
