"""A short prompt with examples, to try models on."""

from __future__ import annotations

from collections.abc import Sequence

from dspy_diffusion_infill.engine.model import TextModel
from dspy_diffusion_infill.prompts.canvas import Masked, Message
from dspy_diffusion_infill.prompts.windows import SlidingWindow

NUM_TOKENS = 8
"""Of each window."""
INSTRUCTIONS = (
    "Read the review and rate how much its writer liked the film. Answer with one number from 1 to 5, where "
    "1 means that the writer hated it and 5 means that the writer loved it. Weigh the whole review: a dull "
    "plot may be saved by the acting. Do not explain the answer."
)
EXAMPLES = (
    ("A warm and funny film, from the first scene to the last.", "5"),
    ("The story is thin, and the jokes are older than the actors.", "2"),
    ("I left before the end, and wish I had left sooner.", "1"),
    ("Not bad, not good: it passes the time.", "3"),
    ("The acting is fine, though the plot takes an hour to begin.", "3"),
    ("A quiet film that stays with you for days.", "5"),
    ("It looks beautiful, but there is nothing behind the pictures.", "2"),
    ("Clever, well played, and a little too long.", "4"),
)


def canvases(model: TextModel) -> tuple[list[list[int]], list[int]]:
    """A canvas for each window of the instructions, and how many of its tokens are examples."""
    vocabulary = model.vocabulary
    sliding = SlidingWindow(window=NUM_TOKENS, stride=NUM_TOKENS, mask=NUM_TOKENS)
    windows = sliding.windows(INSTRUCTIONS, vocabulary.offsets(INSTRUCTIONS))
    masked = [
        Message(
            "system",
            (INSTRUCTIONS[: window.start], Masked(NUM_TOKENS), INSTRUCTIONS[window.end :]),
        )
        for window in windows
    ]
    turns = fitting(model, masked)
    masked_ids = [vocabulary.lay_out([message, *turns]).ids for message in masked]
    alone = [len(vocabulary.lay_out([message]).ids) for message in masked]
    return masked_ids, [len(ids) - length for ids, length in zip(masked_ids, alone, strict=True)]


def fitting(model: TextModel, messages: Sequence[Message]) -> list[Message]:
    """The examples as turns, as many as fit behind each of some messages."""
    turns = [
        turn
        for review, rating in EXAMPLES
        for turn in (Message.text("user", review), Message.text("assistant", rating))
    ]
    lay_out = model.vocabulary.lay_out
    while turns and max(len(lay_out([one, *turns]).ids) for one in messages) > model.context_length:
        turns = turns[:-2]
    return turns
