"""What is made of MLflow's traces, where MLflow itself is not needed."""

from types import SimpleNamespace

import pytest

from dspy_diffusion_infill.judges import mlflow_optimizer


@pytest.mark.parametrize(("values", "label"), [((None,), None), (("short", None), "short"), ((0,), "0")])
def test_people_s_feedback_without_a_value_is_none(values, label):
    people = SimpleNamespace(source_type="HUMAN")
    given = [
        SimpleNamespace(source=people, name="length", value=value, rationale=None, create_time_ms=time)
        for time, value in enumerate(values)
    ]
    span = SimpleNamespace(parent_id=None, inputs="Weather?", outputs="Rain.")
    trace = SimpleNamespace(
        search_assessments=lambda type: given if type == "feedback" else [],
        data=SimpleNamespace(spans=[span]),
    )
    found = mlflow_optimizer._example(trace, "length", ["outputs"])
    assert (found and found.result) == label
