"""Judges as DSPy metrics, and a metric to tune judges by."""

from __future__ import annotations

import dspy

from dspy_diffusion_infill.errors import SettingsError, Unscored
from dspy_diffusion_infill.judges.parse import write_number
from dspy_diffusion_infill.judges.prometheus import Judge
from dspy_diffusion_infill.prompts.program import instructions_of
from dspy_diffusion_infill.search.failures import describe, is_prompts_fault
from dspy_diffusion_infill.search.fingerprint import digest, open_parameters


class JudgeMetric:
    """A judge as DSPy metric: the score of a program's answer, from 0 (lowest) to 1 (highest on the scale).

    An answer that cannot be judged (no readable verdict, or too long for the judge) is `Unscored`: it counts
    for no candidate, and is reported.

    Args:
        judge: Grades. Give it an LM of its own; else the program's judges itself.
        response: The field of the prediction that is judged.
        instruction: The field of the example that holds the instruction; None for all its inputs.
        reference_answer: The field of the example that holds the best answer, if there is one.
        source: The field of the example that holds the source, if there is one.

    Example:
        >>> judge = Judge(template="brief")
        >>> metric = JudgeMetric(judge, response="answer")
    """

    def __init__(
        self,
        judge: Judge,
        *,
        response: str,
        instruction: str | None = None,
        reference_answer: str | None = None,
        source: str | None = None,
    ) -> None:
        self.judge, self.response = judge, response
        self.fields = {"instruction": instruction, "reference_answer": reference_answer, "source": source}
        self.identity = _identity(judge)

    def __call__(
        self,
        example: dspy.Example,
        prediction: dspy.Prediction,
        trace: object = None,
        pred_name: object = None,
        pred_trace: object = None,
    ) -> dspy.Prediction | float:
        """Judge one answer; `feedback` says why, for optimizers that read it, such as GEPA.

        Returns:
            A prediction with `score` and `feedback`. The score alone if there is a trace and no `pred_name`:
            optimizers that bootstrap demos ask whether what they get is true, as any prediction is.

        Raises:
            Unscored: If there is no verdict, or nothing to judge.
            SettingsError: If the example or the prediction lacks a field.
        """
        given = {name: _text(example, field) for name, field in self.fields.items() if field is not None}
        if "instruction" not in given and "instruction" in self.judge.adapter.template.fields:
            given["instruction"] = _laid_out(example)
        given["response"] = _text(prediction, self.response)
        graded = self._graded(given)
        score = self.judge.scale.fraction(graded.score)
        if trace is not None and pred_name is None:
            return score
        return dspy.Prediction(score=score, feedback=graded.feedback)

    def _graded(self, given: dict[str, str]) -> dspy.Prediction:
        try:
            # a trace of its own: what the judge does is no step of the program
            with dspy.context(trace=[]):
                return self.judge(**given)
        except Exception as error:
            if not is_prompts_fault(error):
                raise
            reason = error.__cause__
            raise Unscored(str(reason) if isinstance(reason, Unscored) else describe(error)) from error


class Closeness:
    """Metric to tune a judge by: 1 where it gives people's score, 0 where it is off by the whole scale.

    A correlation is of many examples at once; this is the nearest that one example can say.

    Args:
        judge: Its scale is that of people's scores, which examples hold as `score`.

    Example:
        >>> closeness = Closeness(Judge(template="brief"))
        >>> closeness(dspy.Example(score=5), dspy.Prediction(score=4, feedback="Apt.")).feedback
        'People gave 5, the judge 4: Apt.'
    """

    def __init__(self, judge: Judge) -> None:
        self.scale = judge.scale

    def __call__(
        self,
        example: dspy.Example,
        graded: dspy.Prediction,
        trace: object = None,
        pred_name: object = None,
        pred_trace: object = None,
    ) -> dspy.Prediction:
        """Compare with people; `feedback` is for optimizers that read it, such as GEPA."""
        people, judge = write_number(example.score), write_number(graded.score)
        return dspy.Prediction(
            score=1 - abs(self.scale.fraction(graded.score) - self.scale.fraction(example.score)),
            feedback=f"People gave {people}, the judge {judge}: {graded.feedback}",
        )


def _identity(judge: Judge) -> str:
    """A stand-in for a judge, by which a resumed run knows its metric."""
    demos, lm = [dict(demo) for demo in judge.grade.demos], judge.grade.lm
    settings = [judge.identity, judge.samples, judge.seed, judge.score_from]
    return digest([instructions_of(judge), settings, demos, lm and [lm.model, open_parameters(lm)]])


def _text(record: dspy.Example | dspy.Prediction, field: str) -> str:
    """What is judged, or judged by; nothing is not to be graded as the word `None`."""
    if field not in record.keys():  # noqa: SIM118  (a record of DSPy holds no keys)
        held = ", ".join(map(str, record.keys()))
        raise SettingsError(f"{type(record).__name__} must have the field {field!r}; got {held}.")
    if record[field] is None:
        raise Unscored(f"{field} must be given to be judged; got None.")
    return str(record[field])


def _laid_out(example: dspy.Example) -> str:
    """The inputs of an example: the value alone if there is one, else a line for each."""
    try:
        given = example.inputs()
    except ValueError as error:
        raise SettingsError(
            "Example must name its inputs, by with_inputs(...), unless instruction names a field; got none."
        ) from error
    inputs = {name: str(value) for name, value in given.items()}
    lines = [f"{name}: {value}" for name, value in inputs.items()]
    return "\n".join(inputs.values() if len(inputs) == 1 else lines)
