"""A prompt on its own as canvases, and its fillings as text."""

import pytest

from dspy_diffusion_infill.commands.regions import Region, choose_masking, excerpt, regions, turns
from dspy_diffusion_infill.commands.rows import Row
from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.prompts.canvas import Filling, Masked, Message
from dspy_diffusion_infill.prompts.templates import Template
from dspy_diffusion_infill.prompts.windows import SlidingWindow
from tests.doubles import ScriptedInfiller

WORDS = ScriptedInfiller("x")


def test_the_prompt_says_where_to_infill_or_windows_slide_over_it():
    assert choose_masking("Rate {{mask:3}}.") == Template("Rate {{mask:3}}.")
    assert choose_masking("Rate it.") == SlidingWindow()
    assert choose_masking("Rate it.", window=5) == SlidingWindow(window=5, stride=2, mask=5)
    assert choose_masking("Rate it.", window=1) == SlidingWindow(window=1, stride=1, mask=1)
    assert choose_masking("Rate it.", stride=3, mask=2) == SlidingWindow(window=8, stride=3, mask=2)
    for sizes in ({"window": 8}, {"stride": 4}, {"mask": 8}):
        with pytest.raises(SettingsError, match=r"must be left out for a prompt with {{mask:N}}"):
            choose_masking("Rate {{mask:3}}.", **sizes)
    with pytest.raises(SettingsError, match="window must be at least 1; got 0"):
        choose_masking("Rate it.", window=0)


def test_the_masks_of_a_template_are_one_region_and_the_rest_of_it_is_text():
    text = "Rate {{mask:3}} as {instructions}, {{mask:1}}!"
    (region,) = regions(text, choose_masking(text), WORDS)
    assert region.canvas(()).messages == (
        Message("system", ("Rate ", Masked(3), " as {instructions}, ", Masked(1), "!")),
    )
    filling = Filling(("how warm", "now"), -1.0, 2)
    assert region.pieces(filling) == [
        ("Rate ", False), ("how warm", True), (" as {instructions}, ", False), ("now", True), ("!", False)
    ]  # fmt: skip


def test_windows_leave_out_what_an_optimizer_would_lock():
    text = "Rate the text with `stars` in mind"
    found = regions(text, SlidingWindow(window=2, stride=2, mask=3), WORDS)
    assert [region.before for region in found] == ["Rate the", "text with", "in mind"]
    context = (Message.text("user", "Dull."),)
    canvas = found[1].canvas(context)
    assert canvas.messages == (Message("system", ("Rate the ", Masked(3), " `stars` in mind")),)
    assert canvas.context == context
    assert found[2].pieces(Filling(("y",), -1.0, 1)) == [("Rate the text with `stars` ", False), ("y", True)]


@pytest.mark.parametrize("text", ["", " \n", "`locked`"])
def test_a_prompt_with_nothing_to_rewrite_is_refused(text: str):
    with pytest.raises(SettingsError, match=r"must hold text that is not locked, or {{mask:N}}"):
        regions(text, SlidingWindow(), WORDS)


def test_fillings_are_ranked_and_repeats_left_out():
    one, two, again = (Filling((text,), score, 1) for text, score in (("a", -3.0), ("b", -2.0), ("a", -1.0)))
    (window,) = SlidingWindow().windows("Rate", [(0, 4)])
    assert Region.filled("Rate", window, [one, two, again]).fillings == (again, two)


def test_examples_are_turns_with_names_where_there_are_several_inputs():
    rows = [Row({"review": "Dull.", "output": 2}, "line 1"), Row({"a": "x", "output": "y", "b": 3}, "line 2")]
    assert turns(rows) == (
        Message.text("user", "Dull."),
        Message.text("assistant", "2"),
        Message.text("user", "a: x\nb: 3"),
        Message.text("assistant", "y"),
    )
    for values in ({"review": "Dull."}, {"output": "2"}):
        with pytest.raises(SettingsError, match="must have 'output' and at least one input; line 9 has"):
            turns([Row(values, "line 9")])
    for values in ({"review": None, "output": "2"}, {"review": "Dull.", "output": None}):
        with pytest.raises(SettingsError, match=r"in every column; line 9 has null in '(review|output)'"):
            turns([Row(values, "line 9")])


def test_an_excerpt_is_one_line_with_a_little_around_what_was_written():
    pieces = [("a" * 50, False), ("new\n\x1b", True), ("b" * 81, False), ("more", True), ("c" * 41, False)]
    assert excerpt(pieces) == [
        ("..." + "a" * 40, False),
        (r"new\n\x1b", True),
        ("b" * 40 + "..." + "b" * 40, False),
        ("more", True),
        ("c" * 40 + "...", False),
    ]
    assert excerpt([("a" * 40, False), ("x", True), ("b" * 80, False), ("y", True)])[2] == ("b" * 80, False)
