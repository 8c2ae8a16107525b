"""Rewrite a judge's rubric until its scores agree with people's, and say by how much on records held out."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import cast

import dspy

from dspy_diffusion_infill.checks import check_whole
from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.judges.adapter import PROTOCOL
from dspy_diffusion_infill.judges.agreement import (
    Agreement,
    Estimate,
    Judged,
    Measure,
    agreement,
    improvement,
)
from dspy_diffusion_infill.judges.grading import grade
from dspy_diffusion_infill.judges.metrics import Closeness
from dspy_diffusion_infill.judges.prometheus import Judge
from dspy_diffusion_infill.optimizer import DiffusionInfill
from dspy_diffusion_infill.prompts.canvas import Denoising, Infiller
from dspy_diffusion_infill.prompts.locks import Lock
from dspy_diffusion_infill.prompts.program import instructions_of
from dspy_diffusion_infill.prompts.windows import SlidingWindow
from dspy_diffusion_infill.search.budget import Budget, Preset
from dspy_diffusion_infill.search.fingerprint import digest
from dspy_diffusion_infill.search.journal import Journal, open_journal

RUBRIC_FRAME = re.compile(r"^\[|\]?\nScore [^:\n]+:", re.MULTILINE)
"""What holds a rubric together: the brackets around its criterion, line ends and labels of its scores."""
MIN_DOCUMENTS = 4
"""To tune on half of them and measure on the other half."""


@dataclass(frozen=True, slots=True)
class Alignment:
    """A judge, and how well it agrees with people on records that no choice was made on."""

    judge: Judge
    """With what `DiffusionInfill` attaches: `report.write_report(alignment.judge, folder)` makes a page."""
    before: Agreement
    after: Agreement
    gain: Mapping[Measure, Estimate]
    """After over before, on the same records."""
    num_tuned: int
    """Records that the rubric was tuned on; the others were held out."""

    def markdown(self) -> str:
        """The agreement in a table, then the instructions."""
        rows = [
            f"| {measure} | {self.before.dataset[measure]} | {self.after.dataset[measure]} | {gain} |"
            for measure, gain in self.gain.items()
        ]
        counts = (
            f"Tuned on {self.num_tuned} records, held out {self.after.num_records} of "
            f"{self.after.num_documents} documents; unscored {self.before.num_unscored} before, "
            f"{self.after.num_unscored} after. Intervals are 95 %, over documents."
        )
        table = ["| with people | before | after | gain |", "|---|---|---|---|", *rows]
        instructions = instructions_of(self.judge)["grade"]
        return "\n".join([*table, "", counts, "", "````", instructions, "````", ""])


def align_judge(
    scores: str | os.PathLike[str] | Sequence[dspy.Example],
    *,
    judge: Judge,
    infiller: str | os.PathLike[str] | Infiller | None = None,
    masking: SlidingWindow = SlidingWindow(),  # noqa: B008  (frozen, as the one below)
    denoising: Denoising = Denoising(),  # noqa: B008
    budget: Preset | Budget = "light",
    held_out: float = 0.5,
    resamples: int = 1000,
    seed: int = 0,
    num_threads: int = 8,
    log_dir: str | os.PathLike[str] | None = None,
) -> Alignment:
    """Tune a judge's rubric on people's scores.

    The rubric is infilled window by window, the rest of the prompt and the frame of the rubric are locked; a
    window stays rewritten if the judge's scores come nearer to people's. Then the judge before and the judge
    after grade records of other documents.

    Args:
        scores: Records with people's `score`, on the judge's scale, and what the judge is shown: examples, or
            a CSV file with such columns (`response`, and as its template needs `instruction`,
            `reference_answer`, `source`). Records with the same `document` are never parted; without it, each
            is its own. Not modified.
        judge: Not modified. A judge without a rubric has its whole instructions infilled.
        infiller: As for `DiffusionInfill`.
        masking: Which windows of the rubric are rewritten.
        denoising: How they are filled.
        budget: As for `DiffusionInfill`; grading what is held out comes on top, twice.
        held_out: Share of the documents kept for measuring.
        resamples: Bootstrap samples of the intervals.
        seed: Of the division, the fillings and the intervals.
        num_threads: Records graded at a time.
        log_dir: Folder of the journals, from which a run that was cut short goes on.

    Raises:
        SettingsError: If an argument breaks its rule; nothing was spent.
        EvaluationError: If the judge is down.

    Example:
        >>> judge = Judge(template="brief")
        >>> align_judge("scores.csv", judge=judge, infiller="embedded").gain["spearman"]  # doctest: +SKIP
    """
    check_whole({"resamples": resamples, "seed": seed})
    if resamples < 0:
        raise SettingsError(f"resamples must be at least 0; got {resamples}.")
    examples = [_ready(example, judge) for example in _examples(scores)]
    tuning, measuring = _divided(examples, held_out, seed)
    folder = None if log_dir is None else Path(log_dir)
    optimizer = DiffusionInfill(
        Closeness(judge),
        infiller=infiller,
        masking=masking,
        denoising=denoising,
        budget=budget,
        lock=rubric_locks(judge),
        seed=seed,
        num_threads=num_threads,
        log_dir=folder and folder / "tuning",
    )
    with dspy.context(adapter=judge.adapter):
        tuned = cast(Judge, optimizer.compile(judge, trainset=tuning))
    run = {"held out": digest([dict(example) for example in measuring]), "judge": judge.identity}
    with open_journal(folder and folder / "held-out", run, resume=True) as journal:
        before, after = (_judged(one, measuring, num_threads, journal) for one in (judge, tuned))
    return Alignment(
        judge=tuned,
        before=agreement(before, resamples=resamples, seed=seed),
        after=agreement(after, resamples=resamples, seed=seed),
        gain=improvement(before, after, resamples=resamples, seed=seed),
        num_tuned=len(tuning),
    )


def rubric_locks(judge: Judge) -> list[Lock]:
    """Locks on everything in a judge's instructions but what its rubric says, however that was rewritten.

    Raises:
        SettingsError: If the template's text around the rubric is gone.
    """
    told, rubric = judge.adapter.template.text, judge.rubric
    open_text = next((text for text in (rubric.text, rubric.criterion) if text in told), "") if rubric else ""
    around = [part for part in told.split(open_text, 1) if part] if open_text else []
    instructions = instructions_of(judge)["grade"]
    if lost := [part for part in around if part not in instructions]:
        raise SettingsError(
            f"The judge's instructions must hold its template's text around the rubric; got no {lost[0]!r}."
        )
    return [*PROTOCOL, RUBRIC_FRAME, *around]


def _examples(scores: str | os.PathLike[str] | Sequence[dspy.Example]) -> list[dspy.Example]:
    if not isinstance(scores, str | os.PathLike):
        return list(scores)
    try:
        with Path(scores).open(encoding="utf-8-sig", newline="") as file:  # spreadsheets write a BOM
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SettingsError(f"scores must be a CSV file in UTF-8; got {scores}: {error}.") from error
    if longer := [number for number, row in enumerate(rows, start=1) if None in row]:
        raise SettingsError(
            f"Every record of {scores} must have a name for each cell; record {longer[0]} has more."
        )
    return [dspy.Example(**row) for row in rows]


def _ready(example: dspy.Example, judge: Judge) -> dspy.Example:
    """An example with the judge's inputs and outputs, and the document it is of."""
    fields = judge.adapter.template.fields
    missing = [name for name in (*fields, "score") if example.get(name) in (None, "")]
    if missing:
        raise SettingsError(
            f"scores must have {', '.join(fields)} and score in every record; got no {missing[0]}."
        )
    try:
        score = float(example["score"])
    except (TypeError, ValueError) as error:
        raise SettingsError(f"score must be a number in every record; got {example['score']!r}.") from error
    if not judge.scale.lowest <= score <= judge.scale.highest:
        raise SettingsError(f"score must be on the judge's scale, {judge.scale}; got {score}.")
    given = {name: str(example[name]) for name in fields}
    document = example.get("document")
    document = digest(given) if document in (None, "") else document
    return dspy.Example(**given, score=score, feedback="", document=document).with_inputs(*fields)


def _divided(
    examples: Sequence[dspy.Example], held_out: float, seed: int
) -> tuple[list[dspy.Example], list[dspy.Example]]:
    """Records to tune on and records to measure on; no document is in both."""
    documents = list(dict.fromkeys(example.document for example in examples))
    if not 0 < held_out < 1:
        raise SettingsError(f"held_out must be above 0 and below 1; got {held_out}.")
    if len(documents) < MIN_DOCUMENTS:
        raise SettingsError(f"scores must be of at least {MIN_DOCUMENTS} documents; got {len(documents)}.")
    Random(seed).shuffle(documents)
    count = min(max(2, round(held_out * len(documents))), len(documents) - 2)
    kept = set(documents[:count])
    return (
        [example for example in examples if example.document not in kept],
        [example for example in examples if example.document in kept],
    )


def _judged(
    judge: Judge, examples: Sequence[dspy.Example], num_threads: int, journal: Journal | None
) -> list[Judged]:
    scores = grade(judge, examples, role="held-out", num_threads=num_threads, journal=journal)
    pairs = zip(examples, scores, strict=True)
    return [Judged(example.document, example.score, score) for example, score in pairs]
