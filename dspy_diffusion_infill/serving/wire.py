"""The shapes that travel over HTTP: canvases one way, fillings the other, as plain JSON.

Pure: no dspy, no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from dspy_diffusion_infill.prompts.canvas import Canvas, Filling, Masked, Message


def canvas_to_json(canvas: Canvas) -> dict[str, Any]:
    """Write a canvas as JSON; a masked part reads `{"masked": n}`.

    Example:
        >>> canvas_to_json(Canvas((Message("system", ("Rate ", Masked(3))),)))
        {'messages': [{'role': 'system', 'parts': ['Rate ', {'masked': 3}]}], 'context': []}
    """
    return {"messages": _messages_to_json(canvas.messages), "context": _messages_to_json(canvas.context)}


def canvas_from_json(canvas: Mapping[str, Any]) -> Canvas:
    """Read what `canvas_to_json` wrote.

    Raises:
        CanvasError: If it holds no masked part, or one in its context.
    """
    return Canvas(_messages_from_json(canvas["messages"]), _messages_from_json(canvas["context"]))


def filling_to_json(filling: Filling) -> dict[str, Any]:
    """Write a filling as JSON."""
    return asdict(filling)


def filling_from_json(filling: Mapping[str, Any]) -> Filling:
    """Read what `filling_to_json` wrote."""
    return Filling(tuple(filling["texts"]), float(filling["log_likelihood"]), int(filling["num_passes"]))


def _messages_to_json(messages: Iterable[Message]) -> list[dict[str, Any]]:
    return [
        {
            "role": message.role,
            "parts": [
                {"masked": part.num_tokens} if isinstance(part, Masked) else part for part in message.parts
            ],
        }
        for message in messages
    ]


def _messages_from_json(messages: Iterable[Mapping[str, Any]]) -> tuple[Message, ...]:
    return tuple(
        Message(
            message["role"],
            tuple(part if isinstance(part, str) else Masked(part["masked"]) for part in message["parts"]),
        )
        for message in messages
    )
