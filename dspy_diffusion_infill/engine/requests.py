"""DSPy's requests, read for a model that knows text only."""

from __future__ import annotations

from dataclasses import fields

import dspy

from dspy_diffusion_infill.prompts.canvas import Message, Role

try:
    from dspy import lm15
except ImportError as error:
    raise ImportError(
        f"DiffusionLM needs dspy 3.4 or newer, whose LMs take engines; found {dspy.__version__}. "
        "Upgrade with: pip install 'dspy>=3.4'."
    ) from error

SUPPORTED = ("max_tokens", "temperature", "seed", "stop")
"""Settings of a request that are obeyed."""

_ROLES: dict[str, Role] = {"developer": "system", "user": "user", "assistant": "assistant"}


def read_messages(request: lm15.Request) -> list[Message]:
    """The turns of a request, system message first.

    Raises:
        lm15.UnsupportedFeatureError: If a turn holds more than text, or is a tool's.
    """
    system = request.system
    if system is not None and not isinstance(system, str):
        system = _text("system", lm15.Message.user(list(system)))
    messages = [] if system is None else [Message.text("system", system)]
    return messages + [Message.text(_role(turn), _text(turn.role, turn)) for turn in request.messages]


def _role(turn: lm15.Message) -> Role:
    if turn.role not in _ROLES:
        raise lm15.UnsupportedFeatureError(
            f"A turn's role must be one of {', '.join(_ROLES)}; got {turn.role}."
        )
    return _ROLES[turn.role]


def _text(role: str, turn: lm15.Message) -> str:
    if turn.text is None:
        raise lm15.UnsupportedFeatureError(
            f"A masked diffusion LM reads text only; the {role} turn holds more."
        )
    return turn.text


def check_supported(request: lm15.Request) -> None:
    """Refuse settings that would be ignored.

    Raises:
        lm15.UnsupportedFeatureError: If a setting is outside `SUPPORTED`, or tools are offered.
    """
    if request.tools:
        raise lm15.UnsupportedFeatureError("DiffusionLM does not call tools.", feature="tools")
    for field in fields(request.config):
        if field.name not in SUPPORTED and getattr(request.config, field.name) is not None:
            raise lm15.UnsupportedFeatureError(
                f"DiffusionLM supports {', '.join(SUPPORTED)}; got {field.name}. Other settings belong in "
                "DiffusionLM(..., generation=Generation(...)).",
                feature=f"config.{field.name}",
            )
