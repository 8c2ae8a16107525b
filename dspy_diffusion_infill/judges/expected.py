"""A judge's score as the mean of what it might have written, by the probabilities of its tokens.

Pure: no dspy, no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dspy_diffusion_infill.errors import SettingsError, Unscored
from dspy_diffusion_infill.judges.parse import Form, Scale, score_start

TOP_TOKENS = 20
"""As many as OpenAI and vLLM tell at one place."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token of a reply, and the likeliest that could have stood there, with their log-probabilities.

    Two tokens may read alike, such as a digit and its byte in a Llama's vocabulary.
    """

    text: str
    likeliest: tuple[tuple[str, float | None], ...]


def check_scale(scale: Scale) -> None:
    """Refuse a scale whose scores are not one digit, hence one token.

    Raises:
        SettingsError: If its ends are not digits.
    """
    if not all(end in range(10) for end in (scale.lowest, scale.highest)):
        raise SettingsError(f"score_from='logprobs' needs a scale of single digits; got {scale}.")


def read_tokens(logprobs: Any) -> list[Token]:
    """Tokens from a chat completion's `logprobs`, as a dictionary or as a client's object.

    Example:
        >>> read_tokens({"content": [{"token": "4", "top_logprobs": [{"token": "4", "logprob": 0.0}]}]})
        [Token(text='4', likeliest=(('4', 0.0),))]
    """
    return [
        Token(
            _get(entry, "token"),
            tuple((_get(one, "token"), _get(one, "logprob")) for one in _get(entry, "top_logprobs") or ()),
        )
        for entry in _get(logprobs, "content") or ()
    ]


def expected_score(tokens: Sequence[Token], scale: Scale, form: Form) -> float:
    """The mean of the scores that could have stood where the reply's score stands, weighted by probability.

    Only whole scores count; their probabilities are made to add up to 1. Decimals that the judge wrote are
    not regarded.

    Source: G-Eval (arXiv:2303.16634) weights scores alike, by shares among 20 samples.

    Args:
        tokens: Of a reply that `read_reply` reads.
        scale: Of single digits.
        form: What the judge was asked to write.

    Raises:
        Unscored: If no score is among the likeliest tokens there.

    Example:
        >>> half = math.log(0.5)
        >>> tokens = [Token("[RESULT] ", ()), Token("4", (("4", half), ("5", half)))]
        >>> expected_score(tokens, Scale(1, 5), "result")
        4.5
    """
    place = score_start("".join(token.text for token in tokens), form)
    for token in tokens:
        if place < len(token.text):
            break
        place -= len(token.text)
    else:
        raise Unscored("The reply's score is not among its tokens.")
    before = token.text[:place]
    weights: dict[int, float] = {}
    for text, logprob in token.likeliest:
        digit = text.removeprefix(before).strip()
        if (
            logprob is not None
            and len(digit) == 1
            and digit in "0123456789"
            and scale.lowest <= int(digit) <= scale.highest
        ):
            weights[int(digit)] = weights.get(int(digit), 0.0) + math.exp(logprob)
    total = sum(weights.values())
    if not total:
        raise Unscored(f"No score is among the likeliest tokens in place of {token.text!r}.")
    mean = sum(digit * weight for digit, weight in weights.items()) / total
    return round(mean, 9)  # the rest is noise, which would break ties and leave the scale


def _get(entry: Any, name: str) -> Any:
    return entry.get(name) if isinstance(entry, Mapping) else getattr(entry, name, None)
