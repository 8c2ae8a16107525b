"""MLflow's judges, aligned by infilling: an optimizer for `mlflow.genai.judges.Judge.align`."""

from __future__ import annotations

import importlib
import inspect
import json
import os
from collections.abc import Callable, Sequence
from typing import Any

import dspy
from dspy.signatures.signature import make_signature

from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.optimizer import DiffusionInfill
from dspy_diffusion_infill.prompts.canvas import Denoising, Infiller
from dspy_diffusion_infill.prompts.program import instructions_of
from dspy_diffusion_infill.prompts.windows import SlidingWindow
from dspy_diffusion_infill.search.budget import Budget, Preset

FIELDS = ("inputs", "outputs", "expectations")
"""What a judge may ask of a trace; whole traces and conversations are no fields of a program."""


def mlflow_optimizer(
    *,
    lm: dspy.BaseLM,
    infiller: str | os.PathLike[str] | Infiller | None = None,
    masking: SlidingWindow = SlidingWindow(),  # noqa: B008  (frozen, as the one below)
    denoising: Denoising = Denoising(),  # noqa: B008
    budget: Preset | Budget = "light",
    seed: int = 0,
    num_threads: int = 8,
    log_dir: str | os.PathLike[str] | None = None,
) -> Any:
    """Make an `mlflow.genai.judges.AlignmentOptimizer` that infills a judge's instructions.

    Each trace with people's feedback under the judge's name is an example: the inputs and outputs of its root
    span, its expectations, and the latest feedback. The instructions are infilled window by window, template
    variables such as `{{ inputs }}` locked; a window stays rewritten if the judge gives people's value more
    often. The result is a judge like the one before, with other instructions.

    Source: the interface of MLflow 3.4 and newer. As in MLflow's own DSPy optimizers, candidates are judged
    through DSPy's prompt, not through the prompt that MLflow makes of the same instructions.

    Args:
        lm: The judge's model, for DSPy.
        infiller: As for `DiffusionInfill`, as are the others.
        masking: Which windows of the instructions are rewritten.
        denoising: How they are filled.
        budget: Judgements that may be spent.
        seed: Of the search.
        num_threads: Judgements at a time.
        log_dir: Folder of the journal, from which a run that was cut short goes on.

    Raises:
        ModuleNotFoundError: If MLflow is not installed: `pip install mlflow`.
        SettingsError: By `align`, if the judge asks for other fields, or no trace has people's feedback.

    Example:
        >>> optimizer = mlflow_optimizer(lm=dspy.LM("openai/gpt-4o-mini"))  # doctest: +SKIP
        >>> aligned = judge.align(traces, optimizer=optimizer)  # doctest: +SKIP
    """
    judges = importlib.import_module("mlflow.genai.judges")

    class InfillAlignmentOptimizer(judges.AlignmentOptimizer):
        """Infills a judge's instructions."""

        def align(self, judge: Any, traces: Sequence[Any]) -> Any:
            """A judge with other instructions, that agrees with people at least as often on these traces."""
            program, examples = _program(judge), _examples(judge, traces)
            same = _made_with(judge, judges.make_judge)
            optimizer = DiffusionInfill(
                agrees,
                infiller=infiller,
                masking=masking,
                denoising=denoising,
                budget=budget,
                seed=seed,
                num_threads=num_threads,
                log_dir=log_dir,
            )
            with dspy.context(lm=lm):
                tuned = optimizer.compile(program, trainset=examples)
            return judges.make_judge(**same | {"instructions": instructions_of(tuned)["self"]})

    return InfillAlignmentOptimizer()


def agrees(example: dspy.Example, found: dspy.Prediction, trace: object = None) -> bool:
    """Whether a judge gave people's value, in any case of letters."""
    return str(found.result).strip().lower() == example.result.strip().lower()


def _made_with(judge: Any, make: Callable[..., Any]) -> dict[str, Any]:
    """What a judge says of itself that another may be made with, in whichever version of MLflow.

    Example:
        >>> def make(name, model=None, base_url=None): ...
        >>> from types import SimpleNamespace
        >>> _made_with(SimpleNamespace(name="short", model="openai:/m", id=3), make)
        {'name': 'short', 'model': 'openai:/m'}
    """
    told = {name: getattr(judge, name, None) for name in inspect.signature(make).parameters}
    return {name: value for name, value in told.items() if value is not None}


def _program(judge: Any) -> dspy.Predict:
    """The judge as a DSPy program."""
    fields: dict[str, Any] = {
        field.name: (str, dspy.InputField(desc=field.description)) for field in judge.get_input_fields()
    }
    if others := fields.keys() - set(FIELDS):
        raise SettingsError(f"judge must ask for {', '.join(FIELDS)} alone; got {', '.join(sorted(others))}.")
    outputs = {
        field.name: (str, dspy.OutputField(desc=field.description)) for field in judge.get_output_fields()
    }
    return dspy.Predict(make_signature(fields | outputs, judge.instructions))


def _examples(judge: Any, traces: Sequence[Any]) -> list[dspy.Example]:
    asked = [field.name for field in judge.get_input_fields()]
    found = [_example(trace, judge.name, asked) for trace in traces]
    examples = [example for example in found if example is not None]
    if not examples:
        raise SettingsError(f"traces must hold people's feedback named {judge.name!r}; got none that does.")
    return examples


def _example(trace: Any, name: str, asked: Sequence[str]) -> dspy.Example | None:
    """A trace as an example; None without people's feedback that has a value."""
    given = [
        each
        for each in trace.search_assessments(type="feedback")
        if each.source.source_type == "HUMAN"
        and each.name.strip().lower() == name.strip().lower()
        and each.value is not None
    ]
    roots = [span for span in trace.data.spans if span.parent_id is None]
    if not given or not roots:
        return None
    latest = max(given, key=lambda each: each.create_time_ms or 0)
    expected = {each.name: each.value for each in trace.search_assessments(type="expectation")}
    values = {"inputs": roots[0].inputs, "outputs": roots[0].outputs, "expectations": expected}
    texts = {field: _text(values[field]) for field in asked}
    outputs = {"result": str(latest.value), "rationale": latest.rationale or ""}
    return dspy.Example(**texts, **outputs).with_inputs(*asked)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
