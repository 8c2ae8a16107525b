"""From rows to examples: what a program's inputs are."""

import dspy
import pytest

from dspy_diffusion_infill.commands.examples import input_names, make_examples
from dspy_diffusion_infill.commands.rows import Row
from dspy_diffusion_infill.errors import SettingsError

ROWS = [Row({"review": "Dull.", "scale": 5, "rating": 2, "id": "a"}, "a.csv, line 2")]


class Pipeline(dspy.Module):
    def __init__(self):
        super().__init__()
        self.first = dspy.Predict("summary -> rating")

    def forward(self, review, scale=5):
        return self.first(summary=review)


class Open(Pipeline):
    def forward(self, **fields):
        return self.first(**fields)


@pytest.mark.parametrize(
    ("program", "names"),
    [
        (dspy.Predict("review, scale -> rating"), (["review", "scale"], [])),
        (dspy.ChainOfThought("review -> rating"), (["review"], [])),
        (dspy.ReAct("review -> rating", tools=[]), (["review"], [])),
        (Pipeline(), (["review"], ["scale"])),
        (Open(), (["summary"], [])),
    ],
    ids=["predict", "chain of thought", "react", "parameters", "open"],
)
def test_inputs_are_parameters_of_forward_or_fields_of_the_signature(program, names):
    assert input_names(program) == names


def test_columns_that_are_no_inputs_are_labels():
    (example,) = make_examples(ROWS, dspy.Predict("review -> rating"))
    assert dict(example.inputs()) == {"review": "Dull."}
    assert dict(example.labels()) == {"scale": 5, "rating": 2, "id": "a"}
    (example,) = make_examples(ROWS, Pipeline())
    assert set(example.inputs().keys()) == {"review", "scale"}
    (example,) = make_examples(ROWS, Pipeline(), ["id"])
    assert dict(example.inputs()) == {"id": "a"}


def test_a_row_without_an_input_is_named_with_what_it_has():
    with pytest.raises(SettingsError) as refused:
        make_examples(ROWS, dspy.Predict("review, question -> rating"))
    assert str(refused.value) == (
        "A row must have the inputs review, question; a.csv, line 2 has review, scale, rating, id, and lacks "
        "question. Rename columns, or name those that are inputs with --inputs."
    )
