"""`diffusion-infill perplexity`: how likely texts are to a masked diffusion LM."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dspy_diffusion_infill.commands.rows import Row, read_rows
from dspy_diffusion_infill.commands.terminal import Json, note, only_json, print_json, quieten, say
from dspy_diffusion_infill.commands.texts import read_text
from dspy_diffusion_infill.errors import MissingExtraError, SettingsError

if TYPE_CHECKING:
    from dspy_diffusion_infill.engine.likelihood import Estimate


def perplexity(
    files: Annotated[
        list[str], typer.Argument(help="Texts, one a file; or JSONL or CSV: text, or prompt and response.")
    ],
    model: Annotated[str, typer.Option(help="A masked diffusion LM: a folder, a hub id, or embedded.")],
    samples: Annotated[int, typer.Option(help="Draws of masks for each text.")] = 128,
    estimator: Annotated[
        str, typer.Option(help="exact_count varies least; log_linear is the paper's.")
    ] = "exact_count",
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    as_json: Json = False,
) -> None:
    """Bound the perplexity of instructions, or of responses.

    Responses are read behind their prompts. A text is read where instructions stand, as the system message
    of a conversation.
    """
    rows = [row for file in files for row in _rows(file)]
    quieten(model)
    with only_json(as_json):
        name, found = _estimate(model, rows, samples, estimator, seed)
    if as_json:
        texts = [{"place": row.place, **_plain(one)} for row, one in zip(rows, found, strict=True)]
        print_json({"model": name, "estimator": estimator, "texts": texts, "all": _plain(_together(found))})
    else:
        note(f"{name}, {estimator}, {samples} draws a text; the NELBO is in nats.")
        _show(rows, found)


def _rows(file: str) -> list[Row]:
    """What a file holds: one text, or a text or a response with its prompt a row."""
    if Path(file).suffix.lower() not in (".jsonl", ".csv"):
        return [Row({"text": read_text(Path(file))}, file)]
    return [_texts(row) for row in read_rows(file)]


def _texts(row: Row) -> Row:
    """The columns of a row that hold something to read."""
    texts = {name: str(value) for name, value in row.values.items() if isinstance(value, str | int | float)}
    if not any(names <= texts.keys() for names in ({"text"}, {"prompt", "response"})):
        raise SettingsError(
            f"A row must have text, or prompt and response; {row.place} has {sorted(texts)} with a value."
        )
    return Row(texts, row.place)


def _estimate(
    source: str, rows: Sequence[Row], samples: int, estimator: Any, seed: int
) -> tuple[str, list[Estimate]]:
    try:
        from dspy_diffusion_infill.engine.likelihood import estimate_nelbo, response_target, text_target
        from dspy_diffusion_infill.engine.model import load
        from dspy_diffusion_infill.prompts.canvas import Message
    except ImportError as error:
        raise MissingExtraError("Scoring texts", "engine") from error
    model = load(source)
    targets = []
    for row in rows:
        if "text" in row.values:
            target = text_target(model.vocabulary, row.values["text"])
        else:
            asked = Message.text("user", row.values["prompt"])
            target = response_target(model.vocabulary, [asked], row.values["response"])
        if not target.scored:
            raise SettingsError(f"A text must hold at least one token; {row.place} holds none.")
        targets.append(target)
    found = [
        estimate_nelbo(
            model, [target], num_samples=samples, estimator=estimator, seed=_own_seed(seed, number)
        )
        for number, target in enumerate(targets)
    ]
    return model.name, [one for (one,) in found]


def _own_seed(seed: int, number: int) -> int:
    """Draws that texts share would err alike in all of them."""
    return Random(f"{seed}/{number}").getrandbits(32) if number else seed


def _together(found: Sequence[Estimate]) -> Estimate:
    """Of all texts as one: they are independent of one another."""
    from dspy_diffusion_infill.engine.likelihood import Estimate

    error = math.sqrt(sum(one.standard_error**2 for one in found))
    return Estimate(sum(one.nelbo for one in found), error, sum(one.num_tokens for one in found))


def _show(rows: Sequence[Row], found: Sequence[Estimate]) -> None:
    places = [*(row.place for row in rows), "all"][: len(rows) + (len(rows) > 1)]
    estimates = [*found, _together(found)]
    say(f"{'perplexity':>10}  {'NELBO':>9}  {'+-':>7}  {'tokens':>6}  text")
    for place, one in zip(places, estimates, strict=False):
        numbers = f"{one.perplexity:10.2f}  {one.nelbo:9.2f}  {one.standard_error:7.2f}  {one.num_tokens:6}"
        say(f"{numbers}  {place}")


def _plain(one: Estimate) -> dict[str, float | None]:
    known = math.isfinite(one.standard_error)
    return {
        "perplexity": one.perplexity,
        "nelbo": one.nelbo,
        "standard_error": one.standard_error if known else None,
        "num_tokens": one.num_tokens,
    }
