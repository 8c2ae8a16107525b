"""A user's own program as training data: the very prompts that the optimizer will infill, answered."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from random import Random

import dspy

from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.prompts.canvas import Message
from dspy_diffusion_infill.prompts.render import Fields, is_complete, render_prompt, render_turns

Turns = list[dict[str, str]]


def render_program(
    program: dspy.Module, trainset: Sequence[Fields], *, shots: Sequence[int] = (1, 3), seed: int = 0
) -> list[Turns]:
    """Lay out every predictor's prompt with every example that has all its fields, as canvases are laid out.

    Args:
        program: Its predictors, with their instructions and demos, through the active adapter. Not modified.
        trainset: Labelled examples. Not modified.
        shots: Examples shown after a prompt, for each conversation in turn; 1 for single-shot.
        seed: Of the examples that are shown together.

    Returns:
        Conversations: one for each predictor, example and number of shots.

    Raises:
        SettingsError: If no predictor has an example with all its fields, or `shots` is not positive.
    """
    if not shots or min(shots) < 1:
        raise SettingsError(f"shots must be numbers of at least 1; got {list(shots)}.")
    random = Random(seed)
    conversations = []
    for _, predictor in program.named_predictors():
        turns = [render_turns(predictor, example) for example in trainset if is_complete(predictor, example)]
        prompt = render_prompt(predictor)
        for index, own in enumerate(turns):
            others = turns[:index] + turns[index + 1 :]
            for count in shots:
                shown = [*random.sample(others, min(count - 1, len(others))), own]
                conversations.append([_turn(message) for part in (prompt, *shown) for message in part])
    if not conversations:
        raise SettingsError("trainset must hold an example with every field of some predictor; got none.")
    return conversations


def write_program(path: Path, conversations: Sequence[Turns]) -> None:
    """Write conversations as JSON lines, whole or not at all: data for `diffusion-infill train`."""
    unfinished = path.with_name(path.name + ".tmp")
    lines = (json.dumps({"messages": turns}, ensure_ascii=False) for turns in conversations)
    unfinished.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    os.replace(unfinished, path)


def _turn(message: Message) -> dict[str, str]:
    return {"role": message.role, "content": "".join(map(str, message.parts))}
