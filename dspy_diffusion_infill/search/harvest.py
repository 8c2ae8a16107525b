"""Keep the scores that another optimizer pays for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import dspy
from dspy.utils.callback import BaseCallback

from dspy_diffusion_infill.prompts.candidates import Candidate
from dspy_diffusion_infill.prompts.program import instructions_of, with_instructions
from dspy_diffusion_infill.search.fingerprint import digest
from dspy_diffusion_infill.search.kind import kind_of


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A program as the base evaluated it, and its scores by validation example."""

    instructions: Candidate
    demos: dict[str, list[Any]]
    models: dict[str, str | None]
    """Name of the LM set on each predictor."""
    kind: str
    """Of all else, as `kind_of` says."""
    scores: Mapping[int, float]
    num_failed: int = 0
    """Validation examples on which it failed: these have no score."""
    in_place: bool = True
    """Whether it ran with the LM and the adapter in force; else its scores are those of another program."""

    def is_like(self, other: Evaluated) -> bool:
        """Whether two programs differ in nothing but their instructions."""
        alike = (self.models, self.kind) == (other.models, other.kind)
        return alike and digest(self.demos) == digest(other.demos)


def snapshot(program: dspy.Module, scores: Mapping[int, float]) -> Evaluated:
    """What tells a program from others of its type."""
    predictors = dict(program.named_predictors())
    demos = {name: [dict(demo) for demo in predictor.demos] for name, predictor in predictors.items()}
    models = {name: predictor.lm and predictor.lm.model for name, predictor in predictors.items()}
    return Evaluated(instructions_of(program), demos, models, kind_of(program), scores)


def is_rewrite(student: dspy.Module, program: dspy.Module) -> bool:
    """Whether a program is the student but for its instructions."""
    return type(program) is type(student) and snapshot(student, {}).is_like(snapshot(program, {}))


def rebuilt(student: dspy.Module, found: Evaluated) -> dspy.Module:
    """The student with the instructions and demos of an evaluated program."""
    program = with_instructions(student, found.instructions)
    for name, predictor in program.named_predictors():
        predictor.demos = [dspy.Example(demo) for demo in found.demos[name]]
    return program


class Harvest(BaseCallback):
    """Listens to the evaluations of the base."""

    def __init__(self, valset: Sequence[dspy.Example]) -> None:
        self.evaluated: list[Evaluated] = []
        self._setting = _setting()
        self._num_examples, self._numbers = len(valset), dict[int, list[int]]()
        for n, example in enumerate(valset):  # the same object may be there twice
            self._numbers.setdefault(id(example), []).append(n)
        self._running: dict[str, Evaluated] = {}

    def on_evaluate_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """Remember the program as it is now; optimizers go on to change it."""
        found = snapshot(inputs["program"], {})
        self._running[call_id] = replace(found, in_place=_setting() == self._setting)

    def on_evaluate_end(
        self, call_id: str, outputs: Any | None, exception: BaseException | None = None
    ) -> None:
        """Keep the scores of validation examples."""
        numbers = {example: iter(own) for example, own in self._numbers.items()}
        scores, num_failed = dict[int, float](), 0
        for example, prediction, score in outputs.results if outputs is not None else ():
            number = next(numbers.get(id(example), iter(())), None)
            if number is not None and _succeeded(prediction):
                scores[number] = float(score)
            elif number is not None:
                num_failed += 1
        found = self._running.pop(call_id)
        self.evaluated.append(replace(found, scores=scores, num_failed=num_failed))

    def best(self, student: dspy.Module) -> dspy.Module:
        """The best program evaluated on the whole valset, the earliest of several; else the student.

        Where it failed, a program has the lowest score that any had, as in our own search.
        """
        lowest = min((0.0, *(score for found in self.evaluated for score in found.scores.values())))
        ours = snapshot(student, {})
        whole = [one for one in self.evaluated if len(one.scores) + one.num_failed == self._num_examples]
        complete = [one for one in whole if one.kind == ours.kind]  # others cannot be made again

        def total(found: Evaluated) -> float:
            return sum(found.scores.values()) + found.num_failed * lowest

        return rebuilt(student, max(complete, key=total, default=ours))


def _setting() -> tuple[int, int]:
    return id(dspy.settings.lm), id(dspy.settings.adapter)


def _succeeded(prediction: Any) -> bool:
    """Whether a prediction is the program's own: DSPy puts an empty one in place of a failure."""
    if isinstance(prediction, tuple):  # with its trace, as GEPA wants it
        prediction = prediction[0]
    return isinstance(prediction, dspy.Prediction) and bool(prediction.keys())
