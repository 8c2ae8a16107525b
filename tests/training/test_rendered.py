"""A program's own prompts as training data, laid out as the optimizer lays out its canvases."""

import json
from pathlib import Path

import dspy
import pytest

from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.prompts.compact import CompactAdapter
from dspy_diffusion_infill.prompts.render import render_prompt, render_turns, render_window
from dspy_diffusion_infill.prompts.windows import SlidingWindow
from dspy_diffusion_infill.training.rendered import render_program, write_program

INSTRUCTIONS = "Rate the review.\nUse one digit."


class Chain(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rate = dspy.Predict(dspy.Signature("review -> rating", INSTRUCTIONS))
        self.explain = dspy.Predict(dspy.Signature("rating -> reason", "Say why."))


EXAMPLES = [
    dspy.Example(review=f"Film {n}.", rating=str(n)).with_inputs("review") for n in range(4)
]  # fmt: skip


@pytest.mark.parametrize("adapter", [dspy.ChatAdapter(), CompactAdapter()], ids=["chat", "compact"])
def test_prompts_are_those_of_the_optimizers_canvases_with_nothing_masked(adapter: dspy.Adapter):
    program = Chain()
    (window,) = SlidingWindow().windows(INSTRUCTIONS, [(0, 16), (16, 31)])
    with dspy.context(adapter=adapter):
        found = render_program(program, EXAMPLES, shots=(1,))
        prompt = render_prompt(program.rate)
        masked = render_window(program.rate, INSTRUCTIONS, window)
        turns = render_turns(program.rate, EXAMPLES[2])
    assert [turn["content"] for turn in found[2]] == [
        "".join(map(str, message.parts)) for message in (*prompt, *turns)
    ]
    assert [message.role for message in masked] == [message.role for message in prompt]
    for whole, windowed in zip(prompt, masked, strict=True):
        (text,) = whole.parts
        for part in windowed.parts:
            assert not isinstance(part, str) or part in text
    assert "Rate the review." in "".join(str(message.parts) for message in prompt)


def test_every_example_is_answered_last_after_others_and_incomplete_predictors_are_left_out():
    found = render_program(Chain(), EXAMPLES, shots=(1, 3), seed=7)
    assert len(found) == 8, "nobody labelled reasons, so that only the first predictor is shown"
    assert [sum(turn["role"] == "assistant" for turn in turns) for turns in found] == [1, 3] * 4
    for number, turns in enumerate(found):
        assert f"Film {number // 2}." in turns[-2]["content"]
        shown = [turn["content"] for turn in turns if turn["role"] == "user"]
        assert len(set(shown)) == len(shown)
    assert found == render_program(Chain(), EXAMPLES, shots=(1, 3), seed=7)
    assert found != render_program(Chain(), EXAMPLES, shots=(1, 3), seed=8)


def test_a_predictor_no_example_is_complete_for_is_shown_what_there_is(caplog: pytest.LogCaptureFixture):
    program = dspy.ChainOfThought("question -> answer")
    (turns,) = render_program(program, [dspy.Example(question="2+2", answer="four")], shots=(1,))
    assert "four" in turns[-1]["content"]
    assert "1 of 1 examples lack fields of predictor 'predict' (reasoning): all are laid out" in caplog.text
    assert "Not supplied for this particular example." in turns[-1]["content"]
    assert "'Not supplied for this particular example.', which is trained on" in caplog.text


def test_examples_that_are_left_out_are_counted(caplog: pytest.LogCaptureFixture):
    program = dspy.ChainOfThought("question -> answer")
    whole = dspy.Example(question="2+2", reasoning="Count.", answer="four")
    lacking = [dspy.Example(question=f"{n}+2", answer="more") for n in range(3)]
    (turns,) = render_program(program, [*lacking, whole], shots=(1,))
    assert "2+2" in turns[-2]["content"]
    assert "3 of 4 examples lack fields of predictor 'predict' (reasoning): they are left out." in caplog.text
    caplog.clear()
    render_program(program, [whole])
    assert not caplog.text


def test_conversations_are_written_as_training_reads_them(tmp_path: Path):
    conversations = render_program(Chain(), EXAMPLES, shots=(1,))
    write_program(tmp_path / "program.jsonl", conversations)
    rows = [json.loads(line) for line in (tmp_path / "program.jsonl").read_text().splitlines()]
    assert rows == [{"messages": turns} for turns in conversations]


def test_what_cannot_be_laid_out_is_refused():
    with pytest.raises(
        SettingsError, match="an example with an input and an output of some predictor; got none"
    ):
        render_program(Chain(), [dspy.Example(review="Film.")])
    with pytest.raises(SettingsError, match=r"shots must be a sequence of .* at least 1; got 1\."):
        render_program(Chain(), EXAMPLES, shots=1)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match=r"shots must be a sequence of .* at least 1; got \(0,\)"):
        render_program(Chain(), EXAMPLES, shots=(0,))
