"""A predictor's prompt as messages, through the active adapter, with a window of its instructions masked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import dspy

from dspy_diffusion_infill.errors import CanvasError
from dspy_diffusion_infill.prompts.canvas import Masked, Message, Role
from dspy_diffusion_infill.prompts.program import signature_of
from dspy_diffusion_infill.prompts.windows import Window

Fields = Mapping[str, Any] | dspy.Example
"""Values by field name."""

SENTINEL = "INFILLxWINDOWx7c41e9d2"
"""Stands for the window while the adapter renders; no adapter has a reason to escape letters and digits."""


def active_adapter() -> dspy.Adapter:
    """The adapter that DSPy would use now."""
    return dspy.settings.adapter or dspy.ChatAdapter()


def render_window(predictor: dspy.Predict, instructions: str, window: Window) -> tuple[Message, ...]:
    """Lay out a predictor's prompt as the active adapter does, with one window of its instructions masked.

    The messages are those of a call, without the turn that asks: the system message, then the predictor's own
    demos.

    Args:
        predictor: Its signature and demos are rendered. Not modified.
        instructions: Rendered in place of the predictor's own.
        window: The part of `instructions` to mask.

    Raises:
        CanvasError: If the adapter does not show the instructions exactly once.
    """
    signature = signature_of(predictor).with_instructions(window.replace(instructions, SENTINEL))
    rendered = active_adapter().format(signature, [dict(demo) for demo in predictor.demos], {})
    texts = [(message["role"], _text(message["content"])) for message in rendered]
    count = sum(text.count(SENTINEL) for _, text in texts)
    if count != 1:
        raise CanvasError(
            f"{type(active_adapter()).__name__} must show a predictor's instructions exactly once; it shows "
            f"them {count} times for {list(signature.fields)}. Use another adapter, e.g. dspy.ChatAdapter()."
        )
    *given, asking = texts
    if SENTINEL in asking[1] or asking[0] != "user":
        given = texts  # an adapter with nothing to ask when there are no inputs
    return tuple(_message(role, text, window.num_masks) for role, text in given)


def render_turns(predictor: dspy.Predict, example: Fields) -> tuple[Message, ...]:
    """Lay out one example, with the outputs it holds, as the active adapter lays out a demo.

    Returns:
        A user and an assistant turn; nothing if the example has no input or no output of this predictor.
    """
    signature = signature_of(predictor)
    fields = {name: example[name] for name in signature.fields if name in example}
    turns = active_adapter().format_demos(signature, [fields])
    return tuple(Message.text(cast(Role, turn["role"]), _text(turn["content"])) for turn in turns)


def is_complete(predictor: dspy.Predict, example: Fields) -> bool:
    """Whether an example holds a value for every field of a predictor."""
    return all(name in example and example[name] is not None for name in signature_of(predictor).fields)


def _message(role: str, text: str, num_masks: int) -> Message:
    before, sentinel, after = text.partition(SENTINEL)
    parts = (before, Masked(num_masks), after) if sentinel else (text,)
    return Message(cast(Role, role), tuple(part for part in parts if part != ""))


def _text(content: str | Sequence[Mapping[str, Any]]) -> str:
    """The text of a message; images and files are left out, since a diffusion LM reads text alone."""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)
