"""Whether full-sequence masking unlocks prompt infilling, at a size that two cores can train.

    python -m benchmarks.unlock --data DIR --work DIR --json FILE [--figure FILE --seeds 0 1 2]

One common start learns unpaired sentences and instructions with full masking, as LLaDA's pretraining does.
From it, for each seed, `public` learns to answer with masks on responses only, the stand-in for a public
checkpoint. From `public`, with equal numbers of updates: `ro` (more of the same), `fs` (full sequences), and
`fsro` (full sequences, then responses). Each writes the vague instruction of held-out rating schemes anew
from 16 examples; what it wrote is answered by one fixed task LM (the embedded model), and by itself.
Controls: `fsro` on shuffled labels, random tokens, the nearest training instruction. Nothing is tuned for or
against a variant.

Reported a variant: the gap between the vague and the hand-written instruction that it closed, as in
`benchmarks.demo_gap`; perplexities of held-out prompts and responses; the share of stop tokens where a masked
instruction is guessed at once; and all of these along the refinement. Everything done is kept in the work
folder, and a run that was cut short goes on from there.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from statistics import mean
from typing import Any

import dspy

from benchmarks.demo_gap import Cell, gap_closed, shuffled
from benchmarks.report import write_json
from benchmarks.tasks import RandomInfiller, generated_reviews
from benchmarks.unlock_models import VARIANTS, Models, Plan, conversations, stop_share
from dspy_diffusion_infill import DiffusionLM
from dspy_diffusion_infill.demo import ANSWER_TOKENS, infill, score, split
from dspy_diffusion_infill.engine.infiller import DiffusionInfiller
from dspy_diffusion_infill.engine.model import load
from dspy_diffusion_infill.prompts.canvas import Infiller
from dspy_diffusion_infill.prompts.last_line import LastLineAdapter
from dspy_diffusion_infill.prompts.program import instructions_of
from dspy_diffusion_infill.training.schemes import (
    ORACLE,
    VAGUE,
    Scheme,
    held_out_schemes,
    nearest_training_instruction,
)
from dspy_diffusion_infill.training.start import read_start, read_weights

NONE = "."
"""No instruction: a signature must have one."""
CONTROLS = ("none", "vague", "oracle", "nearest", "random", "shuffled")
METHODS = (*CONTROLS, *VARIANTS)


@dataclass(frozen=True, slots=True)
class Seed:
    """What one seed's models measured, beside its cells."""

    seed: int
    own: dict[str, dict[str, float]]
    """By variant: accuracy of the variant itself with no, its own, `fsro`'s and the oracle's instruction."""
    losses: dict[str, dict[str, float]]
    """By variant: held-out losses and perplexities, and the share of stop tokens."""
    curves: dict[str, list[dict[str, Any]]]
    """By variant: the same along the refinement."""


class Scores:
    """Compiles and scores; every cell is kept in a file, and made once.

    Args:
        models: The variants.
        task: Of the fixed task LM: "embedded", or a folder.
    """

    def __init__(self, models: Models, task: str) -> None:
        self.models = models
        self.task = task
        self.reviews = generated_reviews()

    def cell(self, scheme: Scheme, seed: int) -> Cell:
        """One scheme and seed, every variant and control, answered by the fixed task LM."""
        path = self.models.work / f"cell-{seed}-{held_out_schemes().index(scheme)}.json"
        if not path.is_file():
            unfinished = path.with_suffix(".tmp")
            unfinished.write_text(json.dumps(asdict(self._cell(scheme, seed))), encoding="utf-8")
            unfinished.replace(path)
        return Cell(**json.loads(path.read_text(encoding="utf-8")))

    def _cell(self, scheme: Scheme, seed: int) -> Cell:
        started = time.monotonic()
        shots, scored = split(self.reviews, scheme, seed)
        oracle = ORACLE.format(worst=scheme.worst, best=scheme.best)
        fillers = {name: self.infiller(name, seed) for name in VARIANTS}
        with self.answering(self.task):
            texts = {"none": NONE, "vague": VAGUE, "oracle": oracle}
            texts["nearest"] = nearest_training_instruction(oracle).text
            texts["random"] = written(shots, seed, RandomInfiller(fillers["fsro"]))
            texts["shuffled"] = written(shuffled(shots, seed), seed, fillers["fsro"])
            texts |= {name: written(shots, seed, filler) for name, filler in fillers.items()}
            scores = {name: score(text, scored) for name, text in texts.items()}
        return Cell("generated", scheme.name, seed, scores, texts, time.monotonic() - started)

    def infiller(self, variant: str, seed: int) -> DiffusionInfiller:
        """A variant as an infiller."""
        return DiffusionInfiller(load(str(self.models.variant(variant, seed)), device="cpu"))

    def answering(self, model: str) -> Any:
        """DSPy's context with this task LM."""
        return dspy.context(lm=DiffusionLM(model, max_tokens=ANSWER_TOKENS), adapter=LastLineAdapter())

    def seed(self, seed: int, cells: Sequence[Cell]) -> Seed:
        """What the models of a seed say of themselves."""
        own = {
            name: self._own(name, seed, [cell for cell in cells if cell.seed == seed]) for name in VARIANTS
        }
        curves = {name: self._curve(f"{name}-{seed}") for name in VARIANTS}
        losses = {name: self._losses(name, seed, curves[name]) for name in VARIANTS}
        return Seed(seed, own, losses, curves)

    def _own(self, variant: str, seed: int, cells: Sequence[Cell]) -> dict[str, float]:
        schemes = {scheme.name: scheme for scheme in held_out_schemes()}
        found: dict[str, float] = {}
        with self.answering(str(self.models.variant(variant, seed))):
            for name, method in (("none", "none"), ("own", variant), ("fsro", "fsro"), ("oracle", "oracle")):
                found[name] = mean(
                    score(cell.instructions[method], split(self.reviews, schemes[cell.scheme], seed)[1])
                    for cell in cells
                )
        return found

    def _curve(self, name: str) -> list[dict[str, Any]]:
        return json.loads((self.models.work / f"{name}-curve.json").read_text(encoding="utf-8"))

    def _losses(self, variant: str, seed: int, curve: Sequence[dict[str, Any]]) -> dict[str, float]:
        start = read_start(str(self.models.variant(variant, seed)))
        examples = conversations(start.vocabulary, self.models.plan.held_out)
        last = {name: value for name, value in curve[-1].items() if name.startswith("eval_")}
        return {**last, "stop_share": stop_share(read_weights(start).eval(), examples, start.vocabulary)}


def written(shots: Sequence[dspy.Example], seed: int, filler: Infiller) -> str:
    """The instruction that an infiller wrote."""
    return instructions_of(infill(shots, seed, infiller=filler))["self"]


def interval(cells: Sequence[Cell], method: str, draws: int = 1000) -> tuple[float, float]:
    """95 % bootstrap interval of the gap closed, over cells: schemes and seeds."""
    random = Random(0)
    gaps = sorted(gap_closed(random.choices(cells, k=len(cells)), method) for _ in range(draws))
    return gaps[int(0.025 * draws)], gaps[int(0.975 * draws)]


def bars(cells: Sequence[Cell]) -> dict[str, float]:
    """The gap that each variant closed, and the control; none where the oracle gains nothing."""
    if mean(cell.scores["oracle"] - cell.scores["vague"] for cell in cells) <= 0:
        return {}
    return {f"{name}_gap_closed": gap_closed(cells, name) for name in (*VARIANTS, "shuffled")}


def run(models: Models, seeds: Sequence[int], task: str) -> tuple[list[Cell], list[Seed]]:
    """Every cell, printed as it comes, then what the models say of themselves."""
    scores = Scores(models, task)
    cells = list(_cells(scores, seeds))
    return cells, [scores.seed(seed, cells) for seed in seeds]


def _cells(scores: Scores, seeds: Sequence[int]) -> Iterator[Cell]:
    for seed in seeds:
        for scheme in held_out_schemes()[: scores.models.plan.num_schemes]:
            cell = scores.cell(scheme, seed)
            shown = " ".join(f"{name} {cell.scores[name]:.2f}" for name in METHODS)
            print(f"{cell.scheme:<24} seed {cell.seed}  {shown}  {cell.instructions['fsro']!r}", flush=True)
            yield cell


def draw(path: Path, cells: Sequence[Cell], seeds: Sequence[Seed]) -> None:
    """Accuracy by method, and prompt perplexity along the refinement."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.bar(METHODS, [mean(cell.scores[name] for cell in cells) for name in METHODS])
    left.set_ylabel("accuracy, fixed task LM")
    left.tick_params(axis="x", rotation=60)
    for name in VARIANTS[1:]:
        for one in seeds:
            values = [entry["eval_prompt_perplexity"] for entry in one.curves[name]]
            right.plot(
                range(len(values)), values, label=name if one is seeds[0] else None, color=_COLORS[name]
            )
    right.set_yscale("log")
    right.set_xlabel("measurements along the refinement")
    right.set_ylabel("perplexity of held-out prompts")
    right.legend()
    figure.savefig(path, dpi=150)


_COLORS = {"ro": "tab:red", "fs": "tab:blue", "fsro": "tab:green"}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with sst5_train.jsonl")
    parser.add_argument("--work", type=Path, required=True, help="folder of models and cells")
    parser.add_argument("--json", type=Path, help="file for the result")
    parser.add_argument("--figure", type=Path, help="file for the figure")
    parser.add_argument("--task", default="embedded", help="the fixed task LM: embedded, or a folder")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args(arguments)
    logging.getLogger("dspy").setLevel(logging.WARNING)
    started = time.monotonic()
    cells, seeds = run(Models(options.data, options.work, Plan()), options.seeds, options.task)
    for name, value in bars(cells).items():
        low, high = interval(cells, name.removesuffix("_gap_closed"))
        print(f"{name:<24}{value:6.2f}  [{low:.2f}, {high:.2f}]")
    if options.figure:
        draw(options.figure, cells, seeds)
    if options.json:
        rows = [asdict(one) for one in (*cells, *seeds)]
        write_json(options.json, rows=rows, bars=bars(cells), seeds=options.seeds, started=started)


if __name__ == "__main__":
    main()
