"""What `benchmarks.unlock` shows of its cells and seeds: bars, tables, and the figure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.clusters import crossed_interval
from benchmarks.demo_gap import Cell, Measure, gap_closed

ENDS = ("none", "vague", "oracle")
"""What gaps are measured between, and no instruction at all."""
MEASURES: dict[Measure, str] = {"scores": "accuracy", "kappas": "kappa"}


@dataclass(frozen=True, slots=True)
class Seed:
    """What one seed's models measured, beside its cells."""

    seed: int
    own: dict[str, dict[str, float]]
    """By variant: accuracy of the variant itself with no, its own, `fsro`'s and the oracle's instruction."""
    losses: dict[str, dict[str, float]]
    """By variant: held-out losses and perplexities, and the share of stop tokens."""
    curves: dict[str, list[dict[str, Any]]]
    """By variant: held-out losses and perplexities along the refinement."""


def bars(cells: Sequence[Cell]) -> dict[str, float]:
    """The gap that each variant and control closed, as `gap_closed`; none where the oracle gains nothing."""
    methods = [name for name in _shown(cells) if name not in ENDS]
    gaps = {f"{name}_gap_closed": gap_closed(cells, name) for name in methods}
    gaps |= {f"{name}_kappa_closed": gap_closed(cells, name, "kappas") for name in methods}
    return {name: gap for name, gap in gaps.items() if gap is not None}


def tables(cells: Sequence[Cell], seeds: Sequence[Seed]) -> Iterator[str]:
    """The lines of the tables: accuracies and gaps by method, then what each variant is by itself.

    Intervals are over schemes and seeds: all cells of a drawn one come along.
    """
    shown = "".join(f"{title:>10}{'gap closed':>12}{'95 %':>15}" for title in MEASURES.values())
    yield f"{'instruction':<14}{shown}"
    for name in _shown(cells):
        yield f"{name:<14}" + "".join(_measured(cells, name, of) for of in MEASURES).rstrip()
    yield "\ngap closed after updates of the refinement"
    for name in _COLORS:
        if points := along(cells, name):
            yield f"{name:<10}" + "".join(f"{updates:>8}: {gap:.2f}" for updates, gap in points)
    for part in ("own", "losses"):
        columns = list(getattr(seeds[0], part)["public"])
        yield f"\n{'variant':<10}" + "".join(f"{name:>22}" for name in columns)
        for name in seeds[0].own:
            means = (mean(getattr(seed, part)[name][column] for seed in seeds) for column in columns)
            yield f"{name:<10}" + "".join(f"{value:>22.3f}" for value in means)


def _measured(cells: Sequence[Cell], name: str, of: Measure) -> str:
    """What an instruction is worth, the gap it closed, and where that lies."""
    shown = f"{mean(getattr(cell, of)[name] for cell in cells):>10.3f}"
    gap = None if name in ENDS else gap_closed(cells, name, of)
    if gap is None:
        return shown + " " * 27
    placed = ((cell.scheme, cell.seed, cell) for cell in cells)
    found_in = crossed_interval(placed, partial(gap_closed, method=name, of=of))
    within = "" if found_in is None else "[{:.2f}, {:.2f}]".format(*found_in)
    return f"{shown}{gap:>12.2f}{within:>15}"


def _shown(cells: Sequence[Cell]) -> list[str]:
    """Variants and controls; what lies along a refinement is shown apart."""
    return [name for name in cells[0].scores if "@" not in name]


def along(cells: Sequence[Cell], variant: str) -> list[tuple[int, float]]:
    """The gap closed by what a variant wrote, by the updates since `public`; empty if it was not refined."""
    parts = (name.split("@") for name in cells[0].scores if name.startswith(f"{variant}@"))
    gaps = [(int(updates), gap_closed(cells, f"{name}@{updates}")) for name, updates in parts]
    return [(updates, gap) for updates, gap in sorted(gaps) if gap is not None]


def draw(path: Path, cells: Sequence[Cell], seeds: Sequence[Seed]) -> None:
    """Accuracy by method; prompt perplexity, and what is infilled, along the refinement."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.5), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    methods = _shown(cells)
    left.bar(methods, [mean(cell.scores[name] for cell in cells) for name in methods])
    left.set_ylabel("accuracy, fixed task LM")
    left.tick_params(axis="x", rotation=60)
    for name, color in _COLORS.items():
        for one in seeds:
            curve = one.curves.get(name, ())
            values = [entry["eval_prompt_perplexity"] for entry in curve]
            label = name if values and one is seeds[0] else None
            middle.plot([entry["updates"] for entry in curve], values, label=label, color=color)
        if points := along(cells, name):
            right.plot(*zip(*points, strict=True), "o-", color=color)
    middle.set(yscale="log", ylabel="perplexity of held-out prompts", xlabel="updates of the refinement")
    middle.legend()
    right.set(ylabel="gap closed by what it infills", xlabel="updates of the refinement")
    figure.savefig(path)


_COLORS = {
    "ro": "tab:red",
    "fs": "tab:blue",
    "fsro": "tab:green",
    "eq2": "tab:purple",
    "mix": "tab:orange",
}
"""Of what is charted along its refinement."""
