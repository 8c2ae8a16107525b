"""One choice at a time, on held-out schemes of the embedded task.

    python -m benchmarks.ablation --what steps --json FILE --figure FILE.svg

steps: denoising steps a window (1, 2, 4, 8, 16), with 16 mask tokens a window, so that each number of steps
is another one. The embedded model is task LM and infiller; arXiv:2602.18449 says that moderate numbers are
best, and its own figures could not be read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from benchmarks.cells import embedded, run_cells
from benchmarks.checks import parsed
from benchmarks.rating import CALLS, Setting, gain_line, gain_row, labels, tuned
from benchmarks.report import write_json
from benchmarks.tasks import cells_parser
from dspy_diffusion_infill.demo import score, split, written_reviews
from dspy_diffusion_infill.engine.infiller import DiffusionInfiller
from dspy_diffusion_infill.prompts.canvas import Denoising, Infiller
from dspy_diffusion_infill.prompts.program import instructions_of
from dspy_diffusion_infill.prompts.windows import SlidingWindow
from dspy_diffusion_infill.traces import ConditionOn
from dspy_diffusion_infill.training.schemes import VAGUE, Scheme, held_out_schemes

STEPS = (1, 2, 4, 8, 16)
MASKING = SlidingWindow(window=16, stride=8, mask=16)


def run_cell(
    reviews: Sequence[tuple[str, int]],
    scheme: Scheme,
    seed: int,
    infiller_of: Callable[[int], Infiller],
    steps: Sequence[int],
    condition_on: ConditionOn,
    calls: int,
) -> list[dict[str, Any]]:
    """Compile with the infiller of every number of steps; a row for each."""
    shots, scored = split(reviews, scheme, seed)
    said = labels(shots, shuffled=False, seed=seed) if condition_on != "examples" else None
    vague, rows = score(VAGUE, scored), []
    for number in steps:
        started = time.monotonic()
        setting = Setting(condition_on=condition_on, said=said, masking=MASKING)
        text = instructions_of(tuned(shots, seed, infiller_of(number), setting, calls))["self"]
        rows.append(
            {
                "scheme": scheme.name,
                "seed": seed,
                "steps": number,
                "vague": vague,
                "score": score(text, scored),
                "instructions": text,
                "seconds": time.monotonic() - started,
            }
        )
    return rows


def summarize(rows: Sequence[Mapping[str, Any]], steps: Sequence[int]) -> list[dict[str, Any]]:
    """The gain over the vague instruction for each number of steps."""
    found = []
    for number in steps:
        own = [row for row in rows if row["steps"] == number]
        before, after = ([row[name] for row in own] for name in ("vague", "score"))
        schemes = [row["scheme"] for row in own]
        found.append(gain_row(f"{number} steps", "written", schemes, before, after) | {"steps": number})
    return found


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """The gain by number of steps, with its interval, as an SVG of few and stable lines."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "steps"
    from matplotlib import pyplot as plt

    steps, gains = [row["steps"] for row in rows], [row["gain"] for row in rows]
    figure, axes = plt.subplots(figsize=(5, 3), layout="constrained")
    axes.errorbar(steps, gains, yerr=_reach(rows), marker="o", capsize=3)
    axes.set_xscale("log", base=2)
    axes.set_xticks(steps, [str(number) for number in steps])
    axes.set_xlabel("denoising steps a window of 16 masks")
    axes.set_ylabel("held-out gain")
    figure.savefig(path, format="svg", metadata={"Date": None})
    plt.close(figure)


def _reach(rows: Sequence[Mapping[str, Any]]) -> list[list[float]] | None:
    """How far each interval reaches below and above its gain; one scheme alone gives none."""
    if any(row["low"] is None for row in rows):
        return None
    return [[row["gain"] - row["low"] for row in rows], [row["high"] - row["gain"] for row in rows]]


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = cells_parser(__doc__)
    parser.add_argument("--what", choices=["steps"], required=True)
    parser.add_argument("--steps", type=int, nargs="+", default=list(STEPS))
    parser.add_argument("--condition-on", choices=get_args(ConditionOn), default="traces")
    parser.add_argument("--calls", type=int, default=CALLS, help="metric calls a compile")
    parser.add_argument("--figure", type=Path, help="SVG file for the figure")
    options = parsed(parser, arguments)
    started, rows = time.monotonic(), []
    same = {"steps": options.steps, "condition_on": options.condition_on, "calls": options.calls}
    for found in run_cells(_run_cell, held_out_schemes()[: options.schemes], options.seeds, **same):
        rows += found
        print(*map(_line, found), sep="\n", flush=True)
    summary = summarize(rows, options.steps)
    print(f"\n{'':<28}{'score':>8}{'gain':>9}  95 % over schemes")
    print(*map(gain_line, summary), sep="\n")
    if options.json:
        bars = {f"gain_{row['steps']}_steps": row["gain"] for row in summary}
        write_json(options.json, rows=[*rows, *summary], bars=bars, seeds=options.seeds, started=started)
    if options.figure:
        draw(summary, options.figure)


def _run_cell(scheme: Scheme, seed: int, **same: Any) -> list[dict[str, Any]]:
    return run_cell(written_reviews("test"), scheme, seed, _infiller, **same)


def _infiller(steps: int) -> DiffusionInfiller:
    return DiffusionInfiller(embedded().model, Denoising(steps=steps))


def _line(row: Mapping[str, Any]) -> str:
    cell = f"{row['scheme']:<24} seed {row['seed']} {row['steps']:>3} steps"
    return f"{cell} {row['score']:.2f} {row['instructions']!r}"


if __name__ == "__main__":
    main()
