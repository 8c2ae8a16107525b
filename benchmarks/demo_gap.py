"""How much of the gap between a vague and a hand-written instruction infilling closes, on held-out schemes.

    python -m benchmarks.demo_gap --json FILE [--data DIR --split dev]

The embedded model is task LM and infiller. A cell is a scheme, a seed and a domain: the vague program is
compiled on 16 examples of the domain and scored on 200 other sentences, beside four controls: the oracle
(written by hand), the training instruction nearest to it, compiling on shuffled labels, and windows filled by
random tokens with the same search and budget. Reported a domain: the mean gain over the vague instruction of
what infilling wrote, each cell clipped at the oracle's own gain, over the mean gain of the oracle; of
accuracy, and of agreement beyond chance, which an instruction that only names the labels does not gain.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from random import Random
from statistics import mean
from typing import Literal

import dspy

from benchmarks.cells import embedded, run_cells
from benchmarks.chance import kappa
from benchmarks.checks import parsed
from benchmarks.report import write_json
from benchmarks.tasks import (
    Domain,
    RandomInfiller,
    cells_parser,
    generated_reviews,
    real_reviews,
    real_sentences,
)
from dspy_diffusion_infill.demo import infill, ratings, split, written_reviews
from dspy_diffusion_infill.prompts.canvas import Infiller
from dspy_diffusion_infill.prompts.program import instructions_of
from dspy_diffusion_infill.training.schemes import (
    ORACLE,
    VAGUE,
    Scheme,
    held_out_schemes,
    nearest_training_instruction,
)

Measure = Literal["scores", "kappas"]
METHODS = ("vague", "infilled", "oracle", "nearest", "shuffled", "random")


@dataclass(frozen=True, slots=True)
class Cell:
    """One scheme, seed and domain: instructions by method, and what they are worth."""

    domain: str
    scheme: str
    seed: int
    instructions: dict[str, str]
    scores: dict[str, float]
    """Share of right answers."""
    kappas: dict[str, float]
    """The same beyond chance, as `kappa`."""
    seconds: float

    @property
    def gain(self) -> float:
        """What infilling added, at most what the oracle adds."""
        return min(self.scores["infilled"], self.scores["oracle"]) - self.scores["vague"]


def run_cell(domain: Domain, scheme: Scheme, seed: int, infiller: Infiller, random: Infiller) -> Cell:
    """Compile, and score every method on the same sentences."""
    started = time.monotonic()
    shots, scored = split(domain.reviews, scheme, seed)
    oracle = ORACLE.format(worst=scheme.worst, best=scheme.best)

    def compiled(examples: Sequence[dspy.Example], filler: Infiller) -> str:
        return instructions_of(infill(examples, seed, infiller=filler))["self"]

    instructions = {
        "vague": VAGUE,
        "infilled": compiled(shots, infiller),
        "oracle": oracle,
        "nearest": nearest_training_instruction(oracle).text,
        "shuffled": compiled(shuffled(shots, seed), infiller),
        "random": compiled(shots, random),
    }
    cell = measured(Cell(domain.name, scheme.name, seed, instructions, {}, {}, 0.0), scored)
    return replace(cell, seconds=time.monotonic() - started)


def measured(cell: Cell, examples: Sequence[dspy.Example]) -> Cell:
    """The cell with what its instructions are worth, answered by the LM in force."""
    labels, scores, kappas = [example.rating for example in examples], {}, {}
    answers = {text: ratings(text, examples) for text in dict.fromkeys(cell.instructions.values())}
    for method, text in cell.instructions.items():
        found = answers[text]
        scores[method] = mean(one == label for one, label in zip(found, labels, strict=True))
        kappas[method] = kappa(found, labels)
    return replace(cell, scores=scores, kappas=kappas)


def shuffled(examples: Sequence[dspy.Example], seed: int | str) -> list[dspy.Example]:
    """The same examples with each other's labels."""
    labels = [example.rating for example in examples]
    Random(f"{seed}/labels").shuffle(labels)
    return [example.copy(rating=label) for example, label in zip(examples, labels, strict=True)]


def gap_closed(cells: Sequence[Cell], method: str = "infilled", of: Measure = "scores") -> float | None:
    """Ratio of mean gains: of the method, clipped in each cell at the oracle's, over the oracle's.

    Clipped, a method that beats the oracle in one cell makes up for no other, and none closes more than 1.
    None where the oracle gains nothing.
    """
    found: list[dict[str, float]] = [getattr(cell, of) for cell in cells]
    gap = mean(one["oracle"] - one["vague"] for one in found)
    gains = [min(one[method], one["oracle"]) - one["vague"] for one in found]
    return mean(gains) / gap if gap > 0 else None


def summarize(cells: Sequence[Cell], show: Callable[[str], None]) -> None:
    """Print a table of mean scores and gaps, one column a method."""
    show(f"{'domain':<12}" + "".join(f"{method:>10}" for method in METHODS))
    for domain in dict.fromkeys(cell.domain for cell in cells):
        own = [cell for cell in cells if cell.domain == domain]
        means = "".join(f"{mean(cell.scores[method] for cell in own):>10.3f}" for method in METHODS)
        gaps = "".join(_shown(gap_closed(own, method)) for method in METHODS)
        beyond = "".join(_shown(gap_closed(own, method, "kappas")) for method in METHODS)
        show(f"{domain:<12}{means}\n{'  gap':<12}{gaps}\n{'  by kappa':<12}{beyond}")


def bars(cells: Sequence[Cell]) -> dict[str, float]:
    """The gap that infilling closed on sentences of each kind, and what the oracle scores on real ones.

    By kappa, also that of shuffled labels.
    """
    found: dict[str, float] = {}
    for domain in dict.fromkeys(cell.domain for cell in cells):
        own = [cell for cell in cells if cell.domain == domain]
        if (gap := gap_closed(own)) is not None:
            found[_bar("gap_closed", domain)] = gap
        for method, name in (("infilled", "kappa_closed"), ("shuffled", "shuffled_kappa_closed")):
            if (gap := gap_closed(own, method, "kappas")) is not None:
                found[_bar(name, domain)] = gap
        if domain == "sst":
            found["oracle_sst"] = mean(cell.scores["oracle"] for cell in own)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = real_sentences(cells_parser(__doc__))
    options = parsed(parser, arguments)
    started = time.monotonic()
    domains = [Domain("written", written_reviews("test")), Domain("generated", generated_reviews())]
    if options.data:
        domains.append(Domain("sst", real_reviews(options.data, options.split)))
    cells = []
    for cell in run_cells(_run_cell, domains, held_out_schemes()[: options.schemes], options.seeds):
        cells.append(cell)
        print(_line(cell), flush=True)
    summarize(cells, print)
    if options.json:
        rows = [asdict(cell) for cell in cells]
        write_json(options.json, rows=rows, bars=bars(cells), seeds=options.seeds, started=started)


def _run_cell(domain: Domain, scheme: Scheme, seed: int) -> Cell:
    return run_cell(domain, scheme, seed, embedded(), RandomInfiller(embedded()))


def _line(cell: Cell) -> str:
    scores = " ".join(f"{method} {cell.scores[method]:.2f}" for method in METHODS)
    return (
        f"{cell.domain:<10} {cell.scheme:<24} seed {cell.seed}  {scores}  {cell.instructions['infilled']!r}"
    )


def _shown(gap: float | None) -> str:
    return f"{'-':>10}" if gap is None else f"{gap:>10.2f}"


def _bar(name: str, domain: str) -> str:
    return name if domain == "written" else f"{name}_{domain}"


if __name__ == "__main__":
    main()
