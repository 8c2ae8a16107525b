"""What rules of search and what proposers make of a budget, on the embedded task.

    python -m benchmarks.budget --json FILE [--sentences written]

A cell is a held-out scheme and a seed; its program is compiled on 16 examples, and scored on 200 others: of
sentences generated as those that the embedded model was taught on, or of the written ones, on which it obeys
instructions less and so has no good start.

Rules: one pass over the windows with the same fillings; every candidate scored in full, raced, or screened
and raced. From the vague instruction, and from a good one: a wording of the scheme that scores at least 0.8
of what the oracle does on the 16 examples.

Proposers: the same number of metric calls for each. The same search over fillings of the embedded model, of
random tokens, and of tokens as frequent as in the instructions the model was taught; and COPRO, GEPA and
MIPROv2 with a rewriter that draws whole instructions from those, which is more than
a rewriter could know. GEPA gains little from it: it tries a rewrite on 3 examples before any others, and a
random instruction that gets one of these right is rare.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, cast

import dspy
from dspy.teleprompt import COPRO, GEPA, MIPROv2, Teleprompter

from benchmarks.budget_bars import Row, bars, fewest_calls
from benchmarks.cells import embedded, run_cells
from benchmarks.checks import parsed
from benchmarks.report import write_json
from benchmarks.rewriter import rewriter_lm
from benchmarks.tasks import RandomInfiller, cells_parser, generated_reviews
from dspy_diffusion_infill import Budget, Denoising, DiffusionInfill, Selection, SlidingWindow
from dspy_diffusion_infill.demo import exact, score, split, vague_program, written_reviews
from dspy_diffusion_infill.engine.infiller import DiffusionInfiller
from dspy_diffusion_infill.prompts.canvas import Infiller
from dspy_diffusion_infill.prompts.program import instructions_of, with_instructions
from dspy_diffusion_infill.search.base import run_base
from dspy_diffusion_infill.search.budget import Meter
from dspy_diffusion_infill.search.task import make_task
from dspy_diffusion_infill.training.schemes import (
    ORACLE,
    VAGUE,
    WORDINGS,
    Scheme,
    held_out_schemes,
    training_instructions,
)

RULES = {
    "full": Selection(rule="full"),
    "race": Selection(rule="race"),
    "screen": Selection(rule="race", screen=0.25),
}
SENTENCES = {"generated": generated_reviews, "written": partial(written_reviews, "test")}
GOOD = 0.8
CALLS = (160, 480)
"""Metric calls at which proposers are compared: 10 and 30 an example."""


class Counted:
    """The metric, counting its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(
        self, example: Any, prediction: Any, trace: Any = None, name: Any = None, step: Any = None
    ) -> float:
        """Whether the rating is right."""
        self.calls += 1
        return float(exact(example, prediction))


class UnigramInfiller(RandomInfiller):
    """Fills masks with tokens as frequent as in the instructions that the embedded model was taught."""

    def __init__(self, infiller: DiffusionInfiller) -> None:
        super().__init__(infiller)
        encode = infiller.model.vocabulary.encode
        counts = Counter(token for taught in training_instructions() for token in encode(taught.text))
        banned = infiller.model.vocabulary.banned_ids
        self.words = sorted(token for token in counts.elements() if token not in banned)
        self.name = f"unigrams of {infiller.name}"


@dataclass(frozen=True, slots=True)
class Cell:
    """A scheme and a seed, and its examples."""

    scheme: Scheme
    seed: int
    shots: list[dspy.Example]
    scored: list[dspy.Example]

    def row(self, start: str, method: str, cap: int | None, metric: Counted, before: str, after: str) -> Row:
        """Score what was found."""
        gain = score(after, self.shots) - score(before, self.shots)
        held_out = score(after, self.scored)
        return Row(self.scheme.name, self.seed, start, method, cap, metric.calls, gain, held_out, after)


def run_rules(cell: Cell, infiller: Infiller) -> list[Row]:
    """Every rule from every start, with the same fillings."""
    rows, good = [], good_instruction(cell)
    starts = [("vague", VAGUE), *([("good", good)] if good is not None else [])]
    for start, text in starts:
        for name, rule in RULES.items():
            metric = Counted()
            optimizer = DiffusionInfill(
                metric,
                infiller=infiller,
                masking=SlidingWindow(passes=1),
                denoising=Denoising(num_candidates=16),
                selection=rule,
                budget=Budget(metric_calls=100_000),
                seed=cell.seed,
            )
            program = with_instructions(vague_program(), {"self": text})
            tuned = optimizer.compile(program, trainset=cell.shots)
            row = cell.row(start, name, None, metric, text, instructions_of(tuned)["self"])
            fewest = fewest_calls(vars(tuned)["trial_logs"], metric.calls, len(cell.shots))
            rows.append(replace(row, fewest=fewest))
    return rows


def good_instruction(cell: Cell) -> str | None:
    """A wording of the scheme that is nearly as good as the oracle on the examples; None if there is none."""
    ends = {"worst": cell.scheme.worst, "best": cell.scheme.best}
    bar = GOOD * score(ORACLE.format(**ends), cell.shots)
    texts = (wording.format(**ends) for wording in WORDINGS if wording != ORACLE)
    return next((text for text in texts if score(text, cell.shots) >= bar), None)


def run_proposers(cell: Cell, infillers: dict[str, Infiller], caps: Sequence[int]) -> list[Row]:
    """Every proposer at every cap."""
    runs: dict[str, Callable[[Counted, int], str]] = {
        name: lambda metric, cap, filler=filler: infilled(cell, filler, metric, cap)
        for name, filler in infillers.items()
    }
    for name in ("copro", "gepa", "mipro"):
        runs[name] = lambda metric, cap, name=name: rewritten(cell, name, metric, cap)
    rows = []
    for method, run in runs.items():
        for cap in caps:
            metric = Counted()
            rows.append(cell.row("vague", method, cap, metric, VAGUE, run(metric, cap)))
    return rows


def infilled(cell: Cell, infiller: Infiller, metric: Counted, cap: int) -> str:
    """What the search finds with an infiller."""
    denoising, budget = Denoising(num_candidates=16), Budget(metric_calls=cap)
    optimizer = DiffusionInfill(metric, infiller=infiller, denoising=denoising, budget=budget, seed=cell.seed)
    return instructions_of(optimizer.compile(vague_program(), trainset=cell.shots))["self"]


def rewritten(cell: Cell, name: str, metric: Counted, cap: int) -> str:
    """What another optimizer finds with the rewriter, stopped at the cap."""
    meter = Meter(Budget(metric_calls=cap, base_share=1.0))
    base, required = rewriting(name, metric, cell)
    task = make_task(vague_program(), cell.shots, None)
    found = run_base(base, task, optional={"num_threads": 8}, required=required, meter=meter)
    return instructions_of(found.program)["self"]


class Undemonstrated(MIPROv2):
    """Without demos for its proposer: to find some costs most of its calls and tells the rewriter nothing."""

    def _bootstrap_fewshot_examples(self, *_: Any, **__: Any) -> None:
        return None


def rewriting(name: str, metric: Counted, cell: Cell) -> tuple[Teleprompter, dict[str, Any]]:
    """Another optimizer, and the arguments of its `compile`."""
    lm = cast(Any, rewriter_lm(cell.seed))
    if name == "copro":
        return COPRO(prompt_model=lm, metric=metric, breadth=10, depth=3), {}
    if name == "gepa":
        return GEPA(metric=metric, reflection_lm=lm, max_full_evals=50, seed=cell.seed), {
            "valset": cell.shots
        }
    settings: dict[str, Any] = {"max_bootstrapped_demos": 0, "max_labeled_demos": 0, "auto": None}
    mipro = Undemonstrated(metric=metric, prompt_model=lm, num_candidates=20, seed=cell.seed + 1, **settings)
    return mipro, {"num_trials": 60, "minibatch": False, "valset": cell.shots}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = cells_parser(__doc__)
    parser.add_argument("--parts", nargs="+", choices=("rules", "proposers"), default=["rules", "proposers"])
    parser.add_argument("--sentences", choices=SENTENCES, default="generated")
    parser.add_argument("--calls", type=int, nargs="+", default=list(CALLS))
    given = parsed(parser, arguments)
    started, rows = time.monotonic(), list[Row]()
    same = {"parts": given.parts, "caps": given.calls, "sentences": given.sentences}
    for new in run_cells(_run_cell, held_out_schemes()[: given.schemes], given.seeds, **same):
        rows += new
        print(*map(_line, new), sep="\n", flush=True)
    found = bars(rows)
    for name, value in found.items():
        print(f"{name:24} {value:.3f}")
    if given.json:
        write_json(given.json, rows=list(map(asdict, rows)), bars=found, seeds=given.seeds, started=started)


def _run_cell(
    scheme: Scheme, seed: int, *, parts: Sequence[str], caps: Sequence[int], sentences: str
) -> list[Row]:
    cell, infiller = Cell(scheme, seed, *split(SENTENCES[sentences](), scheme, seed)), embedded()
    fillers = {"infill": infiller, "random": RandomInfiller(infiller), "unigram": UnigramInfiller(infiller)}
    rows = run_rules(cell, infiller) if "rules" in parts else []
    if "proposers" in parts:
        rows += run_proposers(cell, cast(dict[str, Infiller], fillers), caps)
    return rows


def _line(row: Row) -> str:
    cap = "" if row.cap is None else row.cap
    found = f"{row.calls:>6} calls  gain {row.gain:+.2f}  held out {row.held_out:.2f}  {row.instructions!r}"
    return f"{row.scheme:<24} seed {row.seed}  {row.start:<5} {row.method:<8}{cap:>5}{found}"


if __name__ == "__main__":
    main()
