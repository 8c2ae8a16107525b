"""What a server answers, checked before anything is made of it: whatever answers there may be no infiller.

Pure: no dspy, no torch.
"""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dspy_diffusion_infill.errors import InfillerUnavailableError
from dspy_diffusion_infill.prompts.canvas import Filling

Count = Annotated[int, Field(ge=0)]
Many = Annotated[int, Field(ge=1)]
Range = Annotated[list[Count], Field(min_length=2, max_length=2)]


class Answer(BaseModel):
    """Numbers are numbers: no NaN, no True. A newer server may say more than is read."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class Bounds(Answer):
    """What the server takes in one request."""

    canvases: Many
    new_tokens: Many
    body_bytes: Many


class Card(Answer):
    """The served model."""

    fingerprint: str
    limits: Bounds
    context_length: Many
    cache: Literal["exact", "window", "context"]
    scorer: bool = False


class Cards(Answer):
    """All that is served."""

    data: list[Any]


class Offsets(Answer):
    """Where the tokens of a text lie."""

    offsets: list[Range]


class Counted(Answer):
    """Tokens of a canvas."""

    num_tokens: Count


class Scores(Answer):
    """How likely the texts of canvases are."""

    nll_per_token: list[float]


class Filled(Answer):
    """One way to fill a canvas."""

    texts: list[str]
    log_likelihood: float
    num_passes: Count
    confidences: list[list[float]]

    def read(self) -> Filling:
        confidences = tuple(map(tuple, self.confidences))
        return Filling(tuple(self.texts), self.log_likelihood, self.num_passes, confidences)


class Fillings(Answer):
    """Of each canvas."""

    fillings: list[list[Filled]]


Found = TypeVar("Found", bound=Answer)


def read(kind: type[Found], answer: Any, url: str) -> Found:
    """Read an answer.

    Raises:
        InfillerUnavailableError: If it is of another shape.
    """
    try:
        return kind.model_validate(answer)
    except ValidationError as error:
        first = error.errors()[0]
    name = first["loc"][0] if first["loc"] else next(iter(kind.model_fields))
    if len(first["loc"]) < 2 and first["type"] in ("missing", "model_type"):
        raise InfillerUnavailableError(f"What answers at {url} is no infiller: its answer lacks {name!r}.")
    place = ".".join(map(str, first["loc"]))
    raise InfillerUnavailableError(
        f"What answers at {url} sends no {name}: {place}: {first['msg']}; got {reprlib.repr(first['input'])}."
    )


def read_card(answer: Any, url: str) -> Card:
    """Read what the server says of the first model that it serves."""
    return read(Card, next(iter(read(Cards, answer, url).data), None), url)


def read_offsets(answer: Any, text: str, url: str) -> list[tuple[int, int]]:
    """Read where the tokens of a text lie."""
    found = [(start, end) for start, end in read(Offsets, answer, url).offsets]
    if any(not start <= end <= len(text) for start, end in found) or (text.strip() and not found):
        raise InfillerUnavailableError(
            f"{url} must give the tokens of {len(text)} characters; got offsets {reprlib.repr(found)}."
        )
    return found


def read_scores(answer: Any, num_canvases: int, url: str) -> list[float]:
    """Read one score for each canvas."""
    found = read(Scores, answer, url).nll_per_token
    if len(found) != num_canvases:
        raise InfillerUnavailableError(f"{url} must score {num_canvases} canvases; got {len(found)}.")
    return found


def read_fillings(
    answer: Any, num_masked: Sequence[int], num_candidates: int, url: str
) -> list[list[Filling]]:
    """Read the fillings of canvases.

    Args:
        answer: From the server.
        num_masked: Masked parts of each canvas.
        num_candidates: Fillings of each canvas.
        url: Of the server.

    Raises:
        InfillerUnavailableError: If there are more or fewer, or they do not fit the canvases.
    """
    found = read(Fillings, answer, url).fillings
    if len(found) != len(num_masked):
        raise InfillerUnavailableError(f"{url} must fill {len(num_masked)} canvases; got {len(found)}.")
    for each, parts in zip(found, num_masked, strict=True):
        if len(each) != num_candidates:
            raise InfillerUnavailableError(
                f"{url} must fill a canvas {num_candidates} times; got {len(each)}."
            )
        for filling in each:
            _check_parts(filling, parts, url)
    return [[filling.read() for filling in each] for each in found]


def _check_parts(filling: Filled, parts: int, url: str) -> None:
    """One text for each masked part; the tokens' probabilities, where they are told, as well."""
    for name, values in (("texts", filling.texts), ("confidences", filling.confidences or [[]] * parts)):
        if len(values) != parts:
            raise InfillerUnavailableError(
                f"{url} must give {name} for {parts} masked parts; got {len(values)}."
            )
