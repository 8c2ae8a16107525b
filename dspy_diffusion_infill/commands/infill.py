"""`diffusion-infill infill`: a prompt file in, candidates for its masked parts out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dspy_diffusion_infill.commands.regions import Region, choose_masking, excerpt, regions, turns
from dspy_diffusion_infill.commands.rows import read_rows
from dspy_diffusion_infill.commands.terminal import (
    Json,
    marked,
    note,
    only_json,
    print_json,
    quieten,
    say,
)
from dspy_diffusion_infill.commands.texts import read_text
from dspy_diffusion_infill.prompts.canvas import Denoising


def infill(
    prompt: Annotated[Path, typer.Argument(help="Text file; {{mask:8}} is a part to write, of 8 tokens.")],
    examples: Annotated[
        str | None, typer.Option(help="JSONL or CSV: output, and every other column an input.")
    ] = None,
    window: Annotated[int | None, typer.Option(help="Tokens rewritten at a time; else 8.")] = None,
    stride: Annotated[int | None, typer.Option(help="Tokens from window to window; else half of it.")] = None,
    mask: Annotated[int | None, typer.Option(help="Mask tokens in its place; else as many.")] = None,
    infiller: Annotated[
        str | None, typer.Option(help="URL, path, hub id or embedded; else the served model.")
    ] = None,
    num_candidates: Annotated[int, typer.Option("-n", "--candidates", help="Fillings of each.")] = 4,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token.")] = 0.8,
    seed: Annotated[int, typer.Option(help="Of the token choice.")] = 0,
    as_json: Json = False,
) -> None:
    """Fill the masked parts of a prompt, or windows of it.

    Windows slide over a prompt that has no {{mask:N}}.
    """
    from dspy_diffusion_infill.serving.connect import connect

    text = read_text(prompt)
    masking = choose_masking(text, window, stride, mask)
    context = turns(read_rows(examples)) if examples else ()
    how = Denoising(num_candidates=num_candidates, temperature=temperature)
    quieten(infiller)
    with only_json(as_json):
        model = connect(infiller, how)
        cut = regions(text, masking, model)
        canvases = [region.canvas(context) for region in cut]
        fillings = model.infill(canvases, num_candidates=num_candidates, seed=seed)
    found = [
        Region.filled(region.prompt, region.window, few) for region, few in zip(cut, fillings, strict=True)
    ]
    if as_json:
        print_json({"infiller": model.name, "regions": [_plain(region) for region in found]})
    else:
        note(f"Filled by {model.name}; log-likelihood in nats, then the text.")
        _show(found)


def _show(found: list[Region]) -> None:
    for number, region in enumerate(found, start=1):
        if len(found) > 1:
            window = region.window
            where = f"window {number} of {len(found)}, characters {window.start} to {window.end}"
            say(f"\n{where}: {region.before!r}")
        for filling in region.fillings:
            shown = marked(excerpt(region.pieces(filling)))
            say(f"{filling.log_likelihood:8.2f}  {shown}")


def _plain(region: Region) -> dict[str, Any]:
    return {
        "start": region.window.start,
        "end": region.window.end,
        "before": region.before,
        "masks": list(region.window.masks),
        "candidates": [
            {
                "prompt": "".join(text for text, _ in region.pieces(filling)),
                "texts": list(filling.texts),
                "log_likelihood": filling.log_likelihood,
                "num_passes": filling.num_passes,
            }
            for filling in region.fillings
        ],
    }
