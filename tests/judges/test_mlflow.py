"""MLflow's own judges and traces, aligned by infilling; skipped where MLflow is not installed."""

from pathlib import Path

import pytest

from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.judges.mlflow_optimizer import mlflow_optimizer
from tests.doubles import ScriptedInfiller, rule_lm

mlflow = pytest.importorskip("mlflow", reason="needs mlflow, which the project does not depend on")


def counting(system: str, user: str) -> str:
    """Calls every answer short, unless the instructions speak of counting."""
    outputs = user.split("[[ ## outputs ## ]]\n")[1].split("\n")[0]
    result = "long" if "Count words" in system and len(outputs.split()) > 3 else "short"
    return f"[[ ## result ## ]]\n{result}\n\n[[ ## rationale ## ]]\nSo.\n\n[[ ## completed ## ]]"


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> list:
    """Answers of one to eight words; people say whether they are short, a program always that they are."""
    from mlflow.entities import AssessmentSource

    mlflow.set_tracking_uri(f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/runs.db")
    ids = []
    for count in range(1, 9):
        with mlflow.start_span("answer") as span:
            span.set_inputs({"question": "Weather?"})
            span.set_outputs("rain " * count)
            ids.append(span.trace_id)
        mlflow.flush_trace_async_logging()  # newer versions write traces in their own time
        people = AssessmentSource(source_type="HUMAN", source_id="ann")
        program = AssessmentSource(source_type="CODE", source_id="check")
        value = "long" if count > 3 else "short"
        mlflow.log_feedback(trace_id=ids[-1], name="length", value=value, source=people, rationale="I see.")
        mlflow.log_feedback(trace_id=ids[-1], name="length", value="short", source=program)
    return [mlflow.get_trace(id) for id in ids]


def judge(instructions: str):
    from mlflow.genai.judges import make_judge

    return make_judge(name="length", instructions=instructions, model="openai:/none", feedback_value_type=str)


def test_a_judge_of_mlflow_is_aligned_with_people_and_keeps_its_variables(traces: list, tmp_path: Path):
    before = judge("Say if the answer {{ outputs }} to {{ inputs }} is short.")
    lm = rule_lm(counting)
    optimizer = mlflow_optimizer(lm=lm, infiller=ScriptedInfiller("Count words"), budget="medium")
    after = before.align(traces, optimizer=optimizer)
    assert "Count words" in after.instructions
    assert "{{ outputs }}" in after.instructions
    assert "{{ inputs }}" in after.instructions
    assert (after.name, after.model, after.feedback_value_type) == ("length", "openai:/none", str)
    assert "Count words" not in before.instructions


def test_traces_without_people_s_feedback_are_refused(traces: list):
    other = judge("Rate {{ outputs }}.")
    other.name = "tone"
    optimizer = mlflow_optimizer(lm=rule_lm(counting), infiller=ScriptedInfiller("x"))
    with pytest.raises(SettingsError, match="traces must hold people's feedback named 'tone'"):
        optimizer.align(other, traces)


def test_a_judge_of_whole_traces_is_refused(traces: list):
    optimizer = mlflow_optimizer(lm=rule_lm(counting), infiller=ScriptedInfiller("x"))
    with pytest.raises(SettingsError, match="inputs, outputs, expectations alone; got trace"):
        optimizer.align(judge("Look at {{ trace }}."), traces)
