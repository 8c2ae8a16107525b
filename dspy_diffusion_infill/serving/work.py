"""What a scheduler is given to do, and for whom."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import torch

from dspy_diffusion_infill.engine.reverse import Decoding, Filled, Task

Progress = Callable[[int, Sequence[int]], None]
"""Told, while a task is under way, its number and its tokens before the first mask."""


class Ticket:
    """One request: whose it is, and whether anybody still waits for the answer.

    Args:
        client: Who asks; turns are taken between clients.
        progress: Told what is written; None for nobody.
    """

    def __init__(self, client: str, progress: Progress | None = None) -> None:
        self.client, self.progress = client, progress
        self.cancelled = False

    def cancel(self) -> None:
        """Give the request up; its work leaves the batch before the next step."""
        self.cancelled = True


@dataclass(eq=False)
class Job:
    """Tasks of one decoding that somebody waits for."""

    ticket: Ticket
    tasks: Sequence[Task]
    decoding: Decoding
    done: Future[list[Filled]] = field(default_factory=Future)
    filled: dict[int, Filled] = field(default_factory=dict)

    def take(self, index: int, filled: Filled) -> None:
        """Take one result in; with the last one the job is done."""
        self.filled[index] = filled
        if len(self.filled) == len(self.tasks) and not self.done.done():
            self.done.set_result([self.filled[number] for number in range(len(self.tasks))])

    def fail(self, error: BaseException) -> None:
        """Nothing comes of it."""
        if not self.done.done():
            self.done.set_exception(error)


@dataclass(eq=False)
class Unit:
    """All tasks of a job that fill one canvas: they enter a batch at once."""

    job: Job
    indices: list[int]

    @property
    def ticket(self) -> Ticket:
        return self.job.ticket

    @property
    def cost(self) -> float:
        """Tokens that it takes: the canvas once, and what is written for each candidate."""
        return self.size * (1 + (len(self.indices) - 1) / 4)

    @property
    def charge(self) -> float:
        """What its client pays with turns."""
        return self.cost

    @property
    def size(self) -> int:
        """Tokens of one canvas."""
        return len(self.job.tasks[self.indices[0]].ids)

    @property
    def unfinished(self) -> dict[tuple[Unit, int], Task]:
        """Its tasks that are still to be done."""
        return {
            (self, index): self.job.tasks[index] for index in self.indices if index not in self.job.filled
        }

    def parts(self) -> list[Unit]:
        """Two units of half as many tasks, to be begun anew; itself, if there is one task."""
        left = [index for index in self.indices if index not in self.job.filled]
        middle = len(left) // 2
        return [Unit(self.job, some) for some in (left[:middle], left[middle:]) if some]

    def fail(self, error: BaseException) -> None:
        """Nothing comes of it, nor of the job."""
        self.job.fail(error)


@dataclass(eq=False)
class Steps:
    """Any other work on the model, in steps between which others get their turn."""

    ticket: Ticket
    begin: Callable[[], Generator[None, None, Any]]
    cost: float
    """Tokens that a step takes."""
    charge: float
    """What its client pays with turns: tokens of all steps."""
    done: Future[Any] = field(default_factory=Future)

    def __post_init__(self) -> None:
        self._steps = self.begin()

    @property
    def size(self) -> int:
        """Tokens of a step."""
        return int(self.cost)

    def parts(self) -> list[Steps]:
        """Itself, to be begun anew."""
        self._steps = self.begin()
        return [self]

    def step(self) -> bool:
        """Take a step; whether it was the last.

        Raises:
            torch.OutOfMemoryError: If it did not fit; then all steps are to be taken again.
        """
        try:
            next(self._steps)
        except StopIteration as finished:
            self.done.set_result(finished.value)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # noqa: BLE001  (handed to who waits for it)
            self.fail(error)
        return self.done.done()

    def fail(self, error: BaseException) -> None:
        """Nothing comes of it."""
        if not self.done.done():
            self.done.set_exception(error)
