"""What one compile works on, checked before anything is spent."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import dspy

from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.prompts.program import signature_of
from dspy_diffusion_infill.traces import Trace

logger = logging.getLogger(__name__)

AUTO_SHARE, AUTO_FROM = 0.25, 80
"""With fewer examples, an interval on a quarter of them says next to nothing, and the search misses them."""


@dataclass(frozen=True, slots=True)
class Task:
    """A program and the examples to improve it on."""

    student: dspy.Module
    trainset: list[dspy.Example]
    """Conditions the infilling."""
    valset: list[dspy.Example]
    """Selects the best."""
    selects_on_trainset: bool
    """Whether the two are the same."""
    holdout: list[dspy.Example] = field(default_factory=list)
    """Kept out of the search, to confirm its result on."""
    traces: list[Trace] = field(default_factory=list)
    """Of a log; condition the infilling besides."""
    given: Mapping[str, list[dspy.Example]] = field(default_factory=dict)
    """Trainset and valset as the user passed them: what is said of an example tells its number there."""

    def numbers(self, examples: Sequence[dspy.Example], role: str) -> list[int]:
        """Where examples stand among those that the user passed."""
        places = dict[int, int]()
        for number, example in enumerate(self.given.get(role, examples)):
            places.setdefault(id(example), number)
        return [places[id(example)] for example in examples]

    def split(self, share: float | Literal["auto"], seed: int) -> Task:
        """Keep some of the validation examples out, drawn at random; the trainset goes without them as well.

        Args:
            share: How many of them; above 0, one at least. "auto": a quarter if there are at least
                `AUTO_FROM`, else none.
            seed: Of the draw.
        """
        total = len(self.valset)
        if share == "auto":
            share = AUTO_SHARE if total >= AUTO_FROM else 0
        count = max(int(share * total), int(share > 0))
        out = set(random.Random(f"{seed}/holdout").sample(range(total), count))
        if not out:
            return self
        kept = [example for n, example in enumerate(self.valset) if n not in out]
        holdout = [self.valset[n] for n in sorted(out)]
        trainset = kept if self.selects_on_trainset else _without(self.trainset, holdout)
        if not trainset:
            logger.warning("No example is kept out of the search: the trainset would have none left.")
            return self
        return replace(self, trainset=trainset, valset=kept, holdout=holdout)


def _without(examples: Sequence[dspy.Example], others: Iterable[dspy.Example]) -> list[dspy.Example]:
    """The examples that equal none of the others, by what they show: an array in one has no single `==`."""
    shown = set(map(repr, others))
    return [example for example in examples if repr(example) not in shown]


def make_task(
    student: dspy.Module,
    trainset: Iterable[dspy.Example],
    valset: Iterable[dspy.Example] | None,
    traces: Iterable[Trace] = (),
) -> Task:
    """Check what the user passed.

    Raises:
        SettingsError: If the student is no program or has no predictors, or the examples are none, or none
            with inputs, or the traces are none.
    """
    if not isinstance(student, dspy.Module):
        raise SettingsError(f"student must be a dspy.Module; got {student!r}.")
    if not student.named_predictors():
        raise SettingsError("The program has no predictors, so there are no instructions to infill.")
    if (
        hasattr(type(student), "aforward")
        and not hasattr(type(student), "forward")
        and "forward" not in vars(student)
    ):
        raise SettingsError(
            "The program must have a forward method, which its runs call; got aforward alone. "
            "dspy.syncify(program) makes one of it."
        )
    _tell_of_hidden_predictors(student)
    conditions = _listed("trainset", trainset)
    selects = conditions if valset is None else _listed("valset", valset)
    check_examples("trainset", conditions)
    check_examples("valset", selects)
    one_set = valset is None or list(map(repr, selects)) == list(map(repr, conditions))
    selects = conditions if one_set else selects
    given = {"trainset": conditions, "valset": selects}
    task = Task(student, conditions, selects, one_set, traces=list(traces), given=given)
    check_traces(task.traces, [name for name, _ in student.named_predictors()])
    _tell_of_missing_inputs(student, selects)
    return task


def _listed(name: str, examples: object) -> list[dspy.Example]:
    if not isinstance(examples, Iterable):
        raise SettingsError(f"{name} must be a list of dspy.Example objects; got {examples!r}.")
    return list(examples)


def check_traces(traces: Sequence[Trace], predictors: Sequence[str]) -> None:
    """Check the traces of a log.

    Raises:
        SettingsError: If one is none, or of a predictor that the program does not have.
    """
    for number, trace in enumerate(traces):
        if not isinstance(trace, Trace):
            raise SettingsError(f"traces must hold Trace objects (log.traces); got {trace!r} at {number}.")
        if trace.predictor is not None and trace.predictor not in predictors:
            raise SettingsError(
                f"traces must be of the program's predictors, {list(predictors)}, or name none; trace "
                f"{number} is of {trace.predictor!r}."
            )


def _tell_of_hidden_predictors(student: dspy.Module) -> None:
    """DSPy looks for predictors in attributes, and in lists and dicts there, but no deeper."""
    found = {id(predictor) for _, predictor in student.named_predictors()}
    every = student.named_sub_modules(dspy.Predict, skip_compiled=True)
    hidden = [name.removeprefix("self.") for name, predictor in every if id(predictor) not in found]
    if hidden:
        logger.warning("DSPy does not find the predictors %s; they stay as they are.", hidden)


def _tell_of_missing_inputs(student: dspy.Module, examples: Sequence[dspy.Example]) -> None:
    """A lone predictor runs without its inputs, too; what other modules take, nobody can say."""
    if not isinstance(student, dspy.Predict):
        return
    asked = list(signature_of(student).input_fields)
    given = set[str]().union(*(example.inputs().keys() for example in examples))
    if missing := [name for name in asked if name not in given]:
        logger.warning("The program asks for %s, which no example has among its inputs.", missing)


def check_examples(name: str, examples: Sequence[dspy.Example]) -> None:
    """Check a set of examples.

    Raises:
        SettingsError: If there are none, or one is none with inputs.
    """
    if not examples:
        raise SettingsError(f"{name} must hold at least one example; got none.")
    for number, example in enumerate(examples):
        if not isinstance(example, dspy.Example):
            raise SettingsError(f"{name} must hold dspy.Example objects; got {example!r} at {number}.")
        try:
            example.inputs()
        except ValueError as error:
            raise SettingsError(
                f"{name} must hold examples that name their inputs; example {number} does not. "
                "Call example.with_inputs('field', ...)."
            ) from error
