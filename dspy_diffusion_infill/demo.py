"""The main job on data and a model that ship with the package: no GPU, no key, no network.

A program rates reviews. Its instruction says only "Rate the text."; its sixteen labelled examples follow a
scheme that the model was never taught. Infilling has to write the scheme down.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

import dspy
from dspy.signatures.signature import make_signature
from dspy.teleprompt import COPRO

from dspy_diffusion_infill.optimizer import DiffusionInfill
from dspy_diffusion_infill.prompts.canvas import Denoising, Infiller
from dspy_diffusion_infill.prompts.last_line import LastLineAdapter
from dspy_diffusion_infill.prompts.program import instructions_of, with_instructions
from dspy_diffusion_infill.report import write_report
from dspy_diffusion_infill.search.failures import is_prompts_fault
from dspy_diffusion_infill.training.schemes import (
    ORACLE,
    VAGUE,
    Scheme,
    held_out_schemes,
    nearest_training_instruction,
)

NUM_SHOTS = 16
NUM_SCORED = 200
ANSWER_TOKENS = 6

Review = tuple[str, int]
"""A sentence and its grade, from 0 (terrible) to 4 (excellent)."""


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What a demo found."""

    scheme: Scheme
    change: dict[str, Any]
    """`start`, `before` and `after` of the span that changed."""
    instructions: dict[str, str]
    """By what made them: before, after, oracle, nearest."""
    scores: dict[str, float]
    """Of each of them: share of right answers on sentences that compile never saw."""
    metric_calls: int
    compile_s: float
    total_s: float
    report: Path


def run_demo(
    *, lm: str | None = None, seed: int = 0, output: Path = Path("diffusion-infill-demo")
) -> DemoResult:
    """Compile the demo's program and score it before, after, and against two other instructions.

    Args:
        lm: A name for `dspy.LM`; COPRO then writes first. None for the embedded model, alone.
        seed: Of the examples and the fillings.
        output: Folder that receives the report.

    Raises:
        MissingExtraError: If torch or transformers is not installed.
    """
    started = time.monotonic()
    scheme = next(scheme for scheme in held_out_schemes() if len(scheme.labels) == 5)
    shots, scored = split(written_reviews("test"), scheme, seed)
    oracle = ORACLE.format(worst=scheme.worst, best=scheme.best)
    with dspy.context(lm=task_lm(lm), adapter=LastLineAdapter()):
        tuned = infill(shots, seed, base=COPRO(metric=exact, breadth=4, depth=1) if lm else None)
        compile_s = time.monotonic() - started
        instructions = {
            "before": VAGUE,
            "after": instructions_of(tuned)["self"],
            "oracle": oracle,
            "nearest": nearest_training_instruction(oracle).text,
        }
        scores = {name: score(text, scored) for name, text in instructions.items()}
    found: dict[str, Any] = vars(tuned)["detailed_results"]
    return DemoResult(
        scheme=scheme,
        change=found["changes"].get("self", {"start": 0, "before": "", "after": ""}),
        instructions=instructions,
        scores=scores,
        metric_calls=found["metric_calls"],
        compile_s=compile_s,
        total_s=time.monotonic() - started,
        report=write_report(tuned, output),
    )


def infill(
    shots: Sequence[dspy.Example],
    seed: int,
    *,
    infiller: str | Infiller = "embedded",
    base: COPRO | None = None,
) -> dspy.Module:
    """Compile the vague program on a few examples of a scheme, with the settings of demo and benchmark."""
    optimizer = DiffusionInfill(
        exact,
        base=base,
        infiller=infiller,
        denoising=Denoising(num_candidates=16),
        budget="medium",
        num_threads=16,
        seed=seed,
    )
    return optimizer.compile(vague_program(), trainset=list(shots))


def vague_program() -> dspy.Predict:
    """A program that rates a review without being told how."""
    return dspy.Predict(make_signature("review -> rating", VAGUE))


def task_lm(name: str | None) -> dspy.LM:
    """The LM that answers: any `dspy.LM`, or the embedded model, which writes freely."""
    if name is not None:
        return dspy.LM(name)
    from dspy_diffusion_infill import DiffusionLM  # says what to install if torch is not

    return DiffusionLM("embedded", max_tokens=ANSWER_TOKENS)


def written_reviews(part: str) -> list[Review]:
    """The sentences written for the demo: "test", or "dev" for those that choices were made on."""
    text = (
        resources.files("dspy_diffusion_infill")
        .joinpath("assets", "reviews.jsonl")
        .read_text(encoding="utf-8")
    )
    rows = [json.loads(line) for line in text.splitlines()]
    return [(row["text"], row["grade"]) for row in rows if row["split"] == part]


def split(
    reviews: Iterable[Review], scheme: Scheme, seed: int
) -> tuple[list[dspy.Example], list[dspy.Example]]:
    """Examples to compile on, then others to score on; grades that the scheme cannot tell are left out."""
    kept = [review for review in reviews if review[1] in scheme.grades]
    Random(f"{seed}/{scheme.name}").shuffle(kept)
    examples = [
        dspy.Example(review=text, rating=scheme.label(grade)).with_inputs("review") for text, grade in kept
    ]
    return examples[:NUM_SHOTS], examples[NUM_SHOTS : NUM_SHOTS + NUM_SCORED]


def exact(example: dspy.Example, prediction: dspy.Prediction, trace: object = None) -> bool:
    """Whether the rating is the label, to the letter."""
    return prediction.rating.strip() == example.rating


def score(instructions: str, examples: Sequence[dspy.Example]) -> float:
    """Share of right answers of the program with these instructions, in [0, 1]."""
    found = ratings(instructions, examples)
    return fmean(one == example.rating for one, example in zip(found, examples, strict=True))


def ratings(instructions: str, examples: Sequence[dspy.Example]) -> list[str]:
    """What the program answers with these instructions; nothing where that cannot be read."""
    program = _Readable(with_instructions(vague_program(), {"self": instructions}))
    evaluate = dspy.Evaluate(devset=list(examples), metric=exact, num_threads=32, display_progress=False)
    return [(prediction.get("rating") or "").strip() for _, prediction, _ in evaluate(program).results]


class _Readable(dspy.Module):
    """A program whose answer is empty where it cannot be read: DSPy ends an evaluation after ten of these."""

    def __init__(self, program: dspy.Module) -> None:
        super().__init__()
        self.program = program

    def forward(self, **inputs: str) -> dspy.Prediction:
        """Run the program."""
        try:
            return self.program(**inputs)
        except Exception as error:
            if is_prompts_fault(error):
                return dspy.Prediction(rating="")
            raise
