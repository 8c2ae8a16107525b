"""A predictor's prompt as messages, through the active adapter, with a window of its instructions masked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import dspy
from dspy.adapters.types.base_type import split_message_content_for_custom_types

from dspy_diffusion_infill.errors import CanvasError
from dspy_diffusion_infill.prompts.canvas import Masked, Message, Role
from dspy_diffusion_infill.prompts.program import signature_of
from dspy_diffusion_infill.prompts.windows import Window

Fields = Mapping[str, Any] | dspy.Example
"""Values by field name."""

SENTINEL = "INFILLxWINDOWx7c41e9d2"
"""Stands for a masked part while the adapter renders; none has a reason to escape letters and digits."""


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
    marked = window.replace(instructions, window.fill([SENTINEL] * len(window.masks)))
    signature = signature_of(predictor).with_instructions(marked)
    rendered = active_adapter().format(signature, [dict(demo) for demo in predictor.demos], {})
    texts = [(message["role"], _text(message["content"])) for message in rendered]
    count = sum(text.count(SENTINEL) for _, text in texts)
    if count != len(window.masks):
        raise CanvasError(
            f"{type(active_adapter()).__name__} must show a predictor's instructions exactly once; it shows "
            f"them {count // len(window.masks)} times for {list(signature.fields)}. Use another adapter, "
            "e.g. dspy.ChatAdapter()."
        )
    given = _without_question(texts, SENTINEL)
    masks = iter(window.masks)
    return tuple(_message(role, text, masks) for role, text in given)


def render_prompt(predictor: dspy.Predict, instructions: str | None = None) -> tuple[Message, ...]:
    """Lay out a predictor's prompt as the active adapter does: no turn that asks, and no masks.

    Args:
        predictor: Its signature and demos are rendered. Not modified.
        instructions: Rendered in place of the predictor's own.
    """
    signature = signature_of(predictor)
    if instructions is not None:
        signature = signature.with_instructions(instructions)
    rendered = active_adapter().format(signature, [dict(demo) for demo in predictor.demos], {})
    texts = [(message["role"], _text(message["content"])) for message in rendered]
    given = _without_question(texts, signature.instructions)
    return tuple(Message.text(cast(Role, role), text) for role, text in given)


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


def _without_question(texts: list[tuple[str, str]], instructions: str) -> list[tuple[str, str]]:
    """All turns but the last, unless the adapter had nothing to ask, there being no inputs."""
    role, asking = texts[-1]
    return texts if instructions in asking or role != "user" else texts[:-1]


def _message(role: str, text: str, masks: Iterator[int]) -> Message:
    first, *rest = text.split(SENTINEL)
    parts = [first, *(part for piece in rest for part in (Masked(next(masks)), piece))]
    return Message(cast(Role, role), tuple(part for part in parts if part != ""))


def _text(content: str | Sequence[Mapping[str, Any]]) -> str:
    """The text of a message; images and files are left out, since a diffusion LM reads text alone."""
    if isinstance(content, str):  # a demo has them written out between marks, which a call would take apart
        [message] = split_message_content_for_custom_types([{"role": "user", "content": content}])
        content = message["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
