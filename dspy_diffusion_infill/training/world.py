"""What the embedded model is taught on: instructions, reviews and answers, drawn afresh for every update."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from random import Random

from torch import Tensor

from dspy_diffusion_infill.engine.vocabulary import Vocabulary
from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.prompts.canvas import Message
from dspy_diffusion_infill.training.data import Example, collate, encode
from dspy_diffusion_infill.training.grammar import NUM_GRADES, Reviews
from dspy_diffusion_infill.training.masking import Objective
from dspy_diffusion_infill.training.schemes import IMPRESSIONS, Instruction, training_instructions

MIXED = 2
"""Grade of a review that is neither good nor bad."""
PARTS = 2
"""Batches an update: its shorter rows, and its longer ones. A third of a whole batch was padding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One part of the recipe."""

    name: str
    num_updates: int
    learning_rate: float
    shots: tuple[int, ...] = (1, 1, 4, 8, 8)
    """Reviews a row; one of these a batch."""
    num_schemes: int | None = None
    """How many rating schemes there are; None: all but the held-out ones."""
    num_wordings: int | None = None
    """In how many wordings they are stated; None: all."""
    decay: bool = True
    """Whether the learning rate decays, or stays for the next stage to go on with."""
    objectives: tuple[Objective, ...] = ("fs",)
    """How rows are masked; one of these a row."""
    padding: int = 6
    """Most stop tokens trained on after the answer of a row with one review."""
    given_share: float = 0.85
    """Share of the rows whose reviews are never masked: their words are noise, the lesson is in the rest."""
    answers_given: float = 0.0
    """Share of the rows with several reviews whose ratings are never masked, as in an optimizer's canvas: the
    lesson is the instruction."""
    impression_given: float = 0.0
    """Share of whole replies whose impression is never masked: the lesson is which label it calls for."""
    blind_share: float = 0.0
    """Share of the rows with several reviews that are as in the engine's mode *context*: reviews and ratings
    are given, and do not see the instruction."""
    real_share: float = 0.0
    """Share of the reviews that are real sentences."""
    rehearsal: Stage | None = None
    """Every other update is drawn from this stage, so that what it taught is not lost."""


class RealReviews:
    """Labelled sentences from `sst5_SPLIT.jsonl`, by grade.

    Args:
        folder: Holds the file; each line has `text` and `label`, from 0 (very negative) up.
        split: Part of the file names.
    """

    def __init__(self, folder: Path, split: str = "train") -> None:
        five = [(row["text"], row["label"]) for row in _rows(folder / f"sst5_{split}.jsonl")]
        self.by_grade = {
            grade: [text for text, label in five if label == grade] for grade in range(NUM_GRADES)
        }

    def draw(self, grade: int, random: Random) -> str:
        """A sentence of this grade."""
        return random.choice(self.by_grade[grade])


class World:
    """Draws training examples: everything the embedded model will ever see.

    Args:
        real: Real sentences.
        vocabulary: Tokenizer and chat format.
    """

    def __init__(self, real: RealReviews, vocabulary: Vocabulary) -> None:
        self.real = real
        self.vocabulary = vocabulary
        self.instructions = cache(training_instructions)
        self.for_one_review = cache(_for_one_review)

    def batch(self, stage: Stage, batch_tokens: int, seed: int, number: int) -> dict[str, Tensor]:
        """A noised batch, drawn from its number. Each update takes `PARTS` of them.

        Args:
            stage: Says what the rows are.
            batch_tokens: About how many tokens an update has.
            seed: Of the recipe.
            number: Of the batch in its stage.
        """
        update, part = divmod(number, PARTS)
        if stage.rehearsal and update % 2:
            stage = stage.rehearsal
        random = Random(f"{seed}:{stage.name}:{update}")
        shots = random.choice(stage.shots)
        count = max(PARTS, batch_tokens // (15 + 25 * shots))
        rows = sorted((self._row(random, shots, stage) for _ in range(count)), key=_length)
        rows = rows[part * count // PARTS : (part + 1) * count // PARTS]
        objectives: list[Objective] = [
            "fs" if row.context_start else random.choice(stage.objectives) for row in rows
        ]
        return collate(rows, objectives, random.getrandbits(62) + part, self.vocabulary)

    def _row(self, random: Random, shots: int, stage: Stage) -> Example:
        """An instruction, and as many reviews with their answers, of grades that the scheme can tell.

        A single review gets a whole reply; on a scale of one direction it is a mixed one, whose rating would
        be the same in the other, and its impression is given: else that direction is learned by heart
        (docs/log.md), or that such a scale means a mixed review. Several are laid out as examples with
        ratings, as a user has them.
        """
        draw = self.for_one_review if shots == 1 else self.instructions
        instruction = random.choice(draw(stage.num_schemes, stage.num_wordings))
        scheme = instruction.scheme
        answer = instruction.reply if shots == 1 else instruction.answer
        choices = (MIXED,) if shots == 1 and scheme.one_way else scheme.grades
        turns = [Message.text("system", instruction.text)]
        grades = []
        for _ in range(shots):
            grades.append(grade := random.choice(choices))
            turns.append(Message.text("user", self._review(random, grade, stage.real_share)))
            turns.append(Message.text("assistant", answer(grade)))
        given = {"user"} if random.random() < stage.given_share else set()
        if shots > 1 and stage.answers_given and random.random() < stage.answers_given:
            given.add("assistant")
        if shots > 1 and stage.blind_share and random.random() < stage.blind_share:
            return self._blind(turns)
        padding = random.randint(0, stage.padding) if shots == 1 else 0
        row = encode(turns, self.vocabulary, given=frozenset(given), padding=padding)
        if shots == 1 and (random.random() < stage.impression_given or scheme.one_way):
            return _with_given(row, len(self.vocabulary.encode(IMPRESSIONS[grades[0]] + "\n")))
        return row

    def _blind(self, turns: Sequence[Message]) -> Example:
        """A row whose instruction alone is masked, and seen by nothing else."""
        row = encode(turns, self.vocabulary, given=frozenset({"user", "assistant"}))
        return replace(row, context_start=len(self.vocabulary.lay_out(turns[:1]).ids))

    def _review(self, random: Random, grade: int, real_share: float) -> str:
        if random.random() < real_share:
            return self.real.draw(grade, random)
        return Reviews(random).draw(grade)[0]


def _for_one_review(num_schemes: int | None, num_wordings: int | None) -> list[Instruction]:
    """Training instructions, but for scales of one direction without a middle."""
    found = training_instructions(num_schemes, num_wordings)
    return [one for one in found if not one.scheme.one_way or MIXED in one.scheme.grades]


def _with_given(row: Example, count: int) -> Example:
    """The same row, the first tokens of its response never masked."""
    given = range(row.response.index(True), row.response.index(True) + count)

    def without(flags: tuple[bool, ...]) -> tuple[bool, ...]:
        return (*flags[: given.start], *[False] * count, *flags[given.stop :])

    return Example(row.ids, without(row.maskable), without(row.response))


def _length(row: Example) -> int:
    return len(row.ids)


def _rows(path: Path) -> list[dict]:
    if not path.is_file():
        raise SettingsError(f"data must be a folder that holds {path.name}; got {str(path.parent)!r}.")
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
