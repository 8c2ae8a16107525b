"""What traces and their feedback add, on held-out schemes of the embedded task, at equal metric calls.

    python -m benchmarks.traces_gain --json FILE [--data DIR --split dev]

The embedded model is task LM and infiller. A cell is a scheme, a seed and a domain: the vague program is
compiled on 16 reviews four times, within the same number of metric calls, and scored on up to 200 others. The
canvases show labelled examples; or traces with a verdict in words; or traces with feedback besides, that
names the right label; or the same with each other's feedback (the control: the scores stay true).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import dspy

from benchmarks.cells import embedded, run_cells
from benchmarks.checks import parsed
from benchmarks.rating import CALLS, Setting, domains, gain_line, gain_row, labels, tuned
from benchmarks.report import write_json
from benchmarks.tasks import Domain, cells_parser, real_sentences
from dspy_diffusion_infill.demo import score, split
from dspy_diffusion_infill.prompts.canvas import Infiller
from dspy_diffusion_infill.prompts.program import instructions_of
from dspy_diffusion_infill.training.schemes import VAGUE, Scheme, held_out_schemes

METHODS = ("examples", "scores", "feedback", "shuffled")


@dataclass(frozen=True, slots=True)
class Cell:
    """One scheme, seed and domain: what each method wrote, how that scores, and what it spent."""

    domain: str
    scheme: str
    seed: int
    scores: dict[str, float]
    instructions: dict[str, str]
    metric_calls: dict[str, int]
    seconds: float


def settings(shots: Sequence[dspy.Example], seed: int) -> dict[str, Setting]:
    """By method."""
    return {
        "examples": Setting(condition_on="examples"),
        "scores": Setting(condition_on="traces"),
        "feedback": Setting(condition_on="traces", said=labels(shots, shuffled=False, seed=seed)),
        "shuffled": Setting(condition_on="traces", said=labels(shots, shuffled=True, seed=seed)),
    }


def run_cell(domain: Domain, scheme: Scheme, seed: int, infiller: Infiller, calls: int) -> Cell:
    """Compile by every method, and score on the same sentences."""
    started = time.monotonic()
    shots, scored = split(domain.reviews, scheme, seed)
    texts, spent = {"vague": VAGUE}, {"vague": 0}
    for method, setting in settings(shots, seed).items():
        program = tuned(shots, seed, infiller, setting, calls)
        texts[method] = instructions_of(program)["self"]
        spent[method] = vars(program)["detailed_results"]["metric_calls"]
    scores = {method: score(text, scored) for method, text in texts.items()}
    return Cell(domain.name, scheme.name, seed, scores, texts, spent, time.monotonic() - started)


def summarize(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """The gain of each method over the vague instruction, and of feedback over the control, by domain."""
    rows = []
    for domain in dict.fromkeys(cell.domain for cell in cells):
        own = [cell.scores for cell in cells if cell.domain == domain]
        schemes = [cell.scheme for cell in cells if cell.domain == domain]
        vague, control = [one["vague"] for one in own], [one["shuffled"] for one in own]
        rows += [gain_row(method, domain, schemes, vague, [one[method] for one in own]) for method in METHODS]
        rows.append(
            gain_row("feedback over shuffled", domain, schemes, control, [one["feedback"] for one in own])
        )
    return rows


def bars(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """`feedback_gain` and `shuffled_gain` on the sentences that ship; with the domain's name, on others."""
    return {
        f"{row['method']}_gain" + ("" if row["domain"] == "written" else f"_{row['domain']}"): row["gain"]
        for row in rows
        if row["method"] in ("feedback", "shuffled")
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = real_sentences(cells_parser(__doc__))
    parser.add_argument("--calls", type=int, default=CALLS, help="metric calls a compile")
    options = parsed(parser, arguments)
    started, cells = time.monotonic(), []
    axes = (domains(options.data, options.split), held_out_schemes()[: options.schemes], options.seeds)
    for cell in run_cells(_run_cell, *axes, calls=options.calls):
        cells.append(cell)
        print(_line(cell), flush=True)
    rows = summarize(cells)
    print(f"\n{'':<28}{'score':>8}{'gain':>9}  95 % over schemes")
    for row in rows:
        print(gain_line(row))
    if options.json:
        everything = [*map(asdict, cells), *rows]
        write_json(options.json, rows=everything, bars=bars(rows), seeds=options.seeds, started=started)


def _run_cell(domain: Domain, scheme: Scheme, seed: int, *, calls: int) -> Cell:
    return run_cell(domain, scheme, seed, embedded(), calls)


def _line(cell: Cell) -> str:
    scores = " ".join(f"{method} {value:.2f}" for method, value in cell.scores.items())
    return f"{cell.domain:<8} {cell.scheme:<24} seed {cell.seed}  {scores}  {cell.instructions['feedback']!r}"


if __name__ == "__main__":
    main()
