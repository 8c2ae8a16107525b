"""The shapes that travel over HTTP, as a client writes and reads them: plain JSON.

Pure: no dspy, no torch. The server's side, with its bounds, is `schemas`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from operator import itemgetter
from typing import Any, TypeVar

from dspy_diffusion_infill.errors import CanvasError
from dspy_diffusion_infill.prompts.canvas import Canvas, Denoising, Masked, Message

Part = tuple[list[int], dict[str, Any]]
"""The canvases that go into one request, by index, and the request's `canvases` and `context`."""
Found = TypeVar("Found")


def canvas_to_json(canvas: Canvas) -> dict[str, Any]:
    """Write the messages of a canvas; its context travels apart, once for all canvases that share it.

    Example:
        >>> canvas_to_json(Canvas((Message("system", ("Rate ", Masked(3), " or ", Masked(2, 5))),)))
        {'messages': [{'role': 'system', 'content': ['Rate ', {'mask': 3}, ' or ', {'mask': [2, 5]}]}]}
    """
    return {
        "messages": [
            {"role": message.role, "content": [_part_to_json(part) for part in message.parts]}
            for message in canvas.messages
        ]
    }


def context_to_json(context: Iterable[Message]) -> list[dict[str, Any]]:
    """Write turns without masks."""
    return [{"role": message.role, "content": "".join(map(str, message.parts))} for message in context]


def denoising_to_json(denoising: Denoising) -> dict[str, Any]:
    """Write the settings, those that are not set left out."""
    settings = asdict(denoising)
    del settings["num_candidates"]
    return {name: value for name, value in settings.items() if value is not None}


def to_bytes(body: Mapping[str, Any]) -> bytes:
    """Write a body.

    Raises:
        CanvasError: If a text cannot be written as UTF-8.
    """
    try:
        return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as error:
        raise CanvasError(
            f"A text must be UTF-8, without half of a surrogate pair; got {error.object[error.start]!r}."
        ) from None


def requests_for(
    canvases: Sequence[Canvas],
    num_candidates: int,
    limits: Mapping[str, float],
    texts: Sequence[Sequence[str]] | None = None,
) -> Iterator[Part]:
    """Divide canvases among requests: one context each, and no larger than a server takes.

    Args:
        canvases: To be filled, or scored.
        num_candidates: Fillings of each.
        limits: The server's: canvases, new_tokens and body_bytes of a request.
        texts: In the masked parts of each canvas, where they are to be scored.
    """
    sharing: dict[tuple[Message, ...], list[int]] = {}
    for index, canvas in enumerate(canvases):
        sharing.setdefault(canvas.context, []).append(index)
    for context, members in sharing.items():
        turns = context_to_json(context)
        written = {index: canvas_to_json(canvases[index]) for index in members}
        if texts is not None:
            written = {index: {**canvas, "texts": list(texts[index])} for index, canvas in written.items()}
        sizes = {
            index: (num_candidates * _num_masks(canvases[index]), _size(written[index])) for index in members
        }
        room = int(limits["body_bytes"]) - _size(turns) - 4096
        for part in _divided(sizes, int(limits["canvases"]), int(limits["new_tokens"]), room):
            yield part, {"canvases": [written[index] for index in part], "context": turns}


def in_order(parts: Iterable[Part], found: Iterable[Sequence[Found]]) -> list[Found]:
    """What was found for the canvases of each part, in the order of the canvases before they were divided."""
    pairs = (zip(part[0], each, strict=True) for part, each in zip(parts, found, strict=True))
    return [one for _, one in sorted(chain.from_iterable(pairs), key=itemgetter(0))]


def _divided(
    sizes: Mapping[int, tuple[int, int]], most: int, max_masks: int, max_bytes: int
) -> Iterator[list[int]]:
    part: list[int] = []
    masks = length = 0
    for index, (new_masks, new_length) in sizes.items():
        full = len(part) == most or masks + new_masks > max_masks or length + new_length > max_bytes
        if part and full:
            yield part
            part, masks, length = [], 0, 0
        part.append(index)
        masks, length = masks + new_masks, length + new_length
    yield part


def _num_masks(canvas: Canvas) -> int:
    parts = (part for message in canvas.messages for part in message.parts)
    return sum(part.most or part.num_tokens for part in parts if isinstance(part, Masked))


def _size(written: Any) -> int:
    """Bytes, at most: as many as with every character outside ASCII spelled out."""
    return len(json.dumps(written)) + 2


def _part_to_json(part: str | Masked) -> str | dict[str, Any]:
    if isinstance(part, str):
        return part
    return {"mask": part.num_tokens if part.most is None else [part.num_tokens, part.most]}
