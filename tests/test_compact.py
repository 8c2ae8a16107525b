"""The compact layout: what a small model is shown, and how its answer is read back."""

from typing import Literal

import dspy
import pytest
from dspy.utils.exceptions import AdapterParseError

from dspy_diffusion_infill.prompts.compact import CompactAdapter
from dspy_diffusion_infill.prompts.last_line import LastLineAdapter

ONE = dspy.Signature("review -> rating", "\n  Rate the text. \n")
MANY = dspy.Signature("title, body -> label, score: int", "Judge.")
adapter = CompactAdapter()


def test_one_field_each_way_shows_values_alone():
    demo = dspy.Example(review="Dull.", rating="2")
    assert adapter.format(ONE, [demo], {"review": "Superb: a joy."}) == [
        {"role": "system", "content": "Rate the text."},
        {"role": "user", "content": "Dull."},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "Superb: a joy."},
    ]


@pytest.mark.parametrize("completion", ["5", "great\n5", "a thought\nand one more\n 5 \n\n"])
def test_the_last_line_is_the_answer_of_one_that_thinks_first(completion: str):
    assert LastLineAdapter().parse(ONE, completion) == {"rating": "5"}


def test_thoughts_without_an_answer_are_no_answer_and_several_fields_are_read_by_name():
    with pytest.raises(AdapterParseError):
        LastLineAdapter().parse(ONE, " \n ")
    assert LastLineAdapter().parse(MANY, "hm\nlabel: good\nscore: 4") == {"label": "good", "score": 4}


def test_many_fields_show_name_and_value_lines():
    demo = {"title": "A", "body": "B", "label": "good", "score": 4}
    _, user, assistant, _ = adapter.format(MANY, [demo], {"title": "C", "body": "D"})
    assert user["content"] == "title: A\nbody: B"
    assert assistant["content"] == "label: good\nscore: 4"


def test_several_output_fields_are_asked_for_by_name():
    system = adapter.format(MANY, [], {"title": "C", "body": "D"})[0]["content"]
    assert system == "Judge.\n\nAnswer in this form:\nlabel: <label>\nscore: <score>"


def test_a_rendered_answer_parses_back():
    values = {"label": "rather\ngood: yes", "score": 4}
    assert adapter.parse(MANY, adapter.format_assistant_message_content(MANY, values)) == values


def test_a_repeated_heading_counts_once_and_the_first_wins():
    assert adapter.parse(MANY, "label: a\nscore: 1\nlabel: b") == {"label": "a", "score": 1}


@pytest.mark.parametrize(
    ("annotation", "text", "value"), [(float, "4", 4.0), (int, " 3\n", 3), (bool, "True", True)]
)
def test_a_single_value_takes_its_type(annotation, text, value):
    signature = dspy.Signature(
        {"review": (str, dspy.InputField()), "rating": (annotation, dspy.OutputField())}
    )
    assert adapter.parse(signature, text) == {"rating": value}


def test_a_literal_refuses_what_is_not_listed():
    signature = dspy.Signature(
        {"review": (str, dspy.InputField()), "rating": (Literal["up", "down"], dspy.OutputField())}
    )
    assert adapter.parse(signature, "up") == {"rating": "up"}
    with pytest.raises(AdapterParseError, match="sideways"):
        adapter.parse(signature, "sideways")


@pytest.mark.parametrize("completion", ["", "label: good", "score: 3", "nothing here"])
def test_a_missing_required_field_is_a_parse_error(completion):
    with pytest.raises(AdapterParseError):
        adapter.parse(MANY, completion)


def test_a_default_fills_a_missing_field():
    signature = dspy.Signature(
        {
            "review": (str, dspy.InputField()),
            "rating": (str, dspy.OutputField()),
            "note": (str, dspy.OutputField(default="none")),
        }
    )
    assert adapter.parse(signature, "rating: 5") == {"rating": "5", "note": "none"}


def test_an_incomplete_demo_leaves_its_gaps_marked():
    messages = adapter.format(MANY, [{"title": "A", "label": "good"}], {"title": "C", "body": "D"})
    assert messages[1]["content"].endswith("title: A")
    assert messages[2]["content"].startswith("label: good\nscore: Not supplied")
