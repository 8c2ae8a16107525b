"""Whether what a search found holds on examples that it never saw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dspy_diffusion_infill.errors import EvaluationError, MetricError
from dspy_diffusion_infill.prompts.candidates import Candidate
from dspy_diffusion_infill.search.gains import Interval
from dspy_diffusion_infill.search.saying import logger
from dspy_diffusion_infill.search.selection import TOLERANCE
from dspy_diffusion_infill.search.session import Session
from dspy_diffusion_infill.search.start import Start


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What the examples that were kept out of a search say of its result."""

    verdict: Literal["confirmed", "unconfirmed", "refuted"]
    """`confirmed`: the whole interval of the gain is above 0. `refuted`: there is no gain, and the start is
    returned. `unconfirmed`: neither, or not tried."""
    num_examples: int = 0
    """On which both were scored."""
    gain: float | None = None
    """Of the result's score over the start's."""
    interval: Interval | None = None
    """Of the gain, at 95 %."""

    def __str__(self) -> str:
        if self.gain is None or self.interval is None:
            return f"{self.verdict}: not tried on examples kept out of the search"
        gain = f"{self.gain:+.4g} ({self.interval[0]:+.4g} to {self.interval[1]:+.4g})"
        return f"{self.verdict}: {gain} on {self.num_examples} examples kept out of the search"


def confirm(best: Candidate, start: Start, session: Session, *, in_haste: bool) -> Confirmation:
    """Score start and result on the examples that were kept out of the search, with the calls kept for it.

    Where there are none, or Ctrl-C, an outage, a cap or an error of the metric or the program leaves some
    out, the result stays unconfirmed: what the search found is not lost by them.

    Args:
        best: The result.
        start: Where the search began.
        session: The examples, and what is left to spend.
        in_haste: Whether the user has ended the run already; nothing is scored then.
    """
    session.meter.release()
    if best == start.instructions:
        return Confirmation("unconfirmed")
    if not session.task.holdout or in_haste:
        logger.warning(
            "The gain is unconfirmed: it was measured on the examples that chose the edits, and is likely "
            "smaller on others. Selection(holdout=...) keeps some out of the search to measure it."
        )
        return Confirmation("unconfirmed")
    board = session.evaluator(start.program, session.task.holdout, "holdout")
    pair = (start.instructions, best)
    try:
        board.run([(candidate, example) for candidate in pair for example in board.examples])
    except KeyboardInterrupt:
        return Confirmation("unconfirmed")
    except (MetricError, EvaluationError) as error:
        logger.warning("The gain is unconfirmed: %s", error)
        return Confirmation("unconfirmed")
    if any(board.mean(candidate) is None for candidate in pair):
        return Confirmation("unconfirmed")
    gain = board.gain(*pair)
    verdict = "refuted" if gain.size <= TOLERANCE else "confirmed" if gain.interval[0] > 0 else "unconfirmed"
    num_examples = len({example % len(session.task.holdout) for example in board.examples})
    found = Confirmation(verdict, num_examples, gain.size, gain.interval)
    logger.info("The result is %s.", found)
    return found
