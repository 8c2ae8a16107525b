"""What the models of `benchmarks.unlock` learn first, and what they are measured on."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import torch
from torch import Tensor, nn

from dspy_diffusion_infill.engine.vocabulary import Vocabulary
from dspy_diffusion_infill.prompts.canvas import Message
from dspy_diffusion_infill.training.data import Example, collate, encode
from dspy_diffusion_infill.training.grammar import Reviews
from dspy_diffusion_infill.training.masking import Objective
from dspy_diffusion_infill.training.schemes import (
    ORACLE,
    Instruction,
    held_out_schemes,
    training_instructions,
)


def unpaired(vocabulary: Vocabulary, batch_tokens: int, seed: str) -> dict[str, Tensor]:
    """Sentences and instructions, none beside another, masked anywhere."""
    random = Random(f"unpaired:{seed}")
    instructions = training_instructions()
    rows: list[Example] = []
    while sum(len(row.ids) for row in rows) < batch_tokens:
        if random.random() < 0.5:
            turn = Message.text("system", random.choice(instructions).text)
        else:
            turn = Message.text("user", Reviews(random).draw(random.randrange(5))[0])
        rows.append(encode([turn], vocabulary))
    objectives: list[Objective] = ["fs" for _ in rows]
    return collate(rows, objectives, random.getrandbits(62), vocabulary)


def conversations(vocabulary: Vocabulary, count: int) -> list[Example]:
    """Held-out schemes stated and used, one review each."""
    random = Random("unlock: held out")
    schemes = held_out_schemes()
    rows = []
    for number in range(count):
        scheme = schemes[number % len(schemes)]
        grade = random.choice(scheme.grades)
        turns = [
            Message.text("system", Instruction(ORACLE, scheme).text),
            Message.text("user", Reviews(random).draw(grade)[0]),
            Message.text("assistant", Instruction(ORACLE, scheme).reply(grade)),
        ]
        rows.append(encode(turns, vocabulary))
    return rows


def stop_share(model: nn.Module, examples: Sequence[Example], vocabulary: Vocabulary) -> float:
    """Share of stop tokens among the likeliest ones where a whole instruction is masked."""
    stops = wanted = 0
    for example in examples:
        first = example.maskable.index(True)
        window = range(first, example.maskable.index(False, first))
        ids = torch.tensor([example.ids])
        ids[0, window.start : window.stop] = vocabulary.mask_token_id
        with torch.no_grad():
            guesses = model(input_ids=ids, use_cache=False).logits[0, window.start : window.stop].argmax(-1)
        stops += sum(guess in vocabulary.stop_ids for guess in guesses.tolist())
        wanted += len(window)
    return stops / wanted
