"""A user's own program as training data: the very prompts that the optimizer will infill, answered."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from random import Random

import dspy

from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.prompts.canvas import Message
from dspy_diffusion_infill.prompts.program import signature_of
from dspy_diffusion_infill.prompts.render import Fields, is_complete, render_prompt, render_turns

logger = logging.getLogger(__name__)

_ALL_LACK = (
    "all are laid out, and what lacks reads 'Not supplied for this particular example.', which is trained on "
    "where it is in a response; label those fields, or leave them out of the program's outputs"
)
Turns = list[dict[str, str]]


def render_program(
    program: dspy.Module, trainset: Sequence[Fields], *, shots: Sequence[int] = (1, 3), seed: int = 0
) -> list[Turns]:
    """Lay out every predictor's prompt with every example that has all its fields, as canvases are laid out.

    Examples without all fields of a predictor are left out for it. If none has all, all are shown, as the
    optimizer does: what is missing then reads as missing, in the responses too. A warning tells of either.

    Args:
        program: Its predictors, with their instructions and demos, through the active adapter. Not modified.
        trainset: Labelled examples. Not modified.
        shots: Examples shown after a prompt, for each conversation in turn; 1 for single-shot.
        seed: Of the examples that are shown together.

    Returns:
        Conversations: one for each predictor, example and number of shots.

    Raises:
        SettingsError: If no predictor has an example with an input and an output, or `shots` is not positive.
    """
    if isinstance(shots, int) or not shots or min(shots) < 1:
        raise SettingsError(f"shots must be a sequence of numbers of at least 1; got {shots!r}.")
    random = Random(seed)
    conversations = []
    for name, predictor in program.named_predictors():
        turns = [turns for example in _shown(name, predictor, trainset)
                 if (turns := render_turns(predictor, example))]  # fmt: skip
        prompt = render_prompt(predictor)
        for index, own in enumerate(turns):
            others = turns[:index] + turns[index + 1 :]
            for count in shots:
                shown = [*random.sample(others, min(count - 1, len(others))), own]
                conversations.append([_turn(message) for part in (prompt, *shown) for message in part])
    if not conversations:
        raise SettingsError(
            "trainset must hold an example with an input and an output of some predictor; got none."
        )
    return conversations


def _shown(name: str, predictor: dspy.Predict, trainset: Sequence[Fields]) -> list[Fields]:
    complete = [example for example in trainset if is_complete(predictor, example)]
    if lacking := len(trainset) - len(complete):
        fields = [field for field in signature_of(predictor).fields
                  if not all(example.get(field) is not None for example in trainset)]  # fmt: skip
        logger.warning(
            "%d of %d examples lack fields of predictor %r (%s): %s.",
            lacking,
            len(trainset),
            name,
            ", ".join(fields),
            "they are left out" if complete else _ALL_LACK,
        )
    return complete or list(trainset)


def write_program(path: str | Path, conversations: Sequence[Turns]) -> None:
    """Write conversations as JSON lines, whole or not at all: data for `diffusion-infill train`."""
    path = Path(path)
    unfinished = path.with_name(path.name + ".tmp")
    lines = (json.dumps({"messages": turns}, ensure_ascii=False) for turns in conversations)
    unfinished.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    os.replace(unfinished, path)


def _turn(message: Message) -> dict[str, str]:
    return {"role": message.role, "content": "".join(map(str, message.parts))}
