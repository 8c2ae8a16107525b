"""One thread that owns the model: canvases of many requests advance in shared batches."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

import torch

from dspy_diffusion_infill.engine.denoise import check_canvas
from dspy_diffusion_infill.engine.model import MaskPredictor
from dspy_diffusion_infill.engine.reverse import Decoding, Filled, Task
from dspy_diffusion_infill.engine.rows import max_batch_tokens
from dspy_diffusion_infill.errors import RefusedError
from dspy_diffusion_infill.serving.fairness import FairQueue
from dspy_diffusion_infill.serving.metrics import Metrics
from dspy_diffusion_infill.serving.running import Running
from dspy_diffusion_infill.serving.work import Job, Steps, Ticket, Unit

Result = TypeVar("Result")

NUM_BATCHES = 4
"""Batches of `max_batch_tokens` that may be in work at a time."""
REGROWTH = 1.002
"""By step, after memory ran out: what fits doubles in some 350 steps, and is found out again."""
log = logging.getLogger(__name__)


class Scheduler:
    """Continuous batching, fair between clients.

    Work waits in a queue for each client, and the client that got the least tokens is served next. A canvas
    enters as soon as there is room, takes its first step by itself, and all later ones together with others;
    batches of different settings take turns, step by step. When memory runs out, half as much is taken on,
    and what was lost is begun anew with the same noise.

    Args:
        model: The mask predictor; nobody else may run it meanwhile.
        metrics: Told what happens.
        max_tokens: In work at a time; None: four batches of the device's size.

    Example:
        >>> from dspy_diffusion_infill.engine.model import ToyModel
        >>> toy = ToyModel(answer=torch.tensor([5, 6, 7]), vocab_size=9, mask_token_id=8)
        >>> with Scheduler(toy, Metrics()) as scheduler:
        ...     len(scheduler.run(Ticket("me"), [Task([5, 8, 8], seed=0)], Decoding())[0].ids)
        3
    """

    def __init__(self, model: MaskPredictor, metrics: Metrics, max_tokens: int | None = None) -> None:
        self._model, self._metrics = model, metrics
        self._most = float(max_tokens or NUM_BATCHES * max_batch_tokens(model.device))
        self.room = self._most
        self._queue: FairQueue[Unit | Steps] = FairQueue()
        self._running = Running(model, metrics)
        self._steps: list[Steps] = []
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="diffusion-infill-model", daemon=True)

    def __enter__(self) -> Scheduler:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Refuse new work, finish what was begun, and stop."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    @property
    def alive(self) -> bool:
        """Whether work will be done."""
        return self._thread.is_alive()

    def run(self, ticket: Ticket, tasks: Sequence[Task], decoding: Decoding) -> list[Filled]:
        """Denoise tasks, and wait for them; as `denoise`.

        Raises:
            CanvasError: If a canvas holds no mask token, or does not fit the model's context.
            SettingsError: If the model cannot be run in the cache mode that is asked for.
            RefusedError: If the ticket is cancelled, the server stops, or not even one task fits the memory.
        """
        alike: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
        for index, task in enumerate(tasks):
            check_canvas(self._model, task.ids)
            alike[tuple(task.ids)].append(index)
        if not tasks:
            return []
        job = Job(ticket, tasks, decoding)
        self._enqueue([Unit(job, indices) for indices in alike.values()])
        return job.done.result()

    def run_steps(
        self, ticket: Ticket, begin: Callable[[], Generator[None, None, Result]], num_tokens: float
    ) -> Result:
        """Run other work on the model, a step at a time among the batches, and wait for its result.

        Args:
            ticket: Whose it is.
            begin: Gives the steps, in the caller's thread; again, if memory ran out.
            num_tokens: That the model reads, in all steps.

        Raises:
            RefusedError: If the ticket is cancelled, the server stops, or a step does not fit the memory.
        """
        at_a_time = min(num_tokens, max_batch_tokens(self._model.device))
        work = Steps(ticket, begin, cost=at_a_time, charge=num_tokens)
        self._enqueue([work])
        return work.done.result()

    def _enqueue(self, items: Sequence[Unit | Steps]) -> None:
        with self._changed:
            if self._closing:
                raise RefusedError(503, "stopping", "The server is stopping; ask again later.", 5)
            for item in items:
                self._queue.put(item.ticket.client, item, item.charge)
            self._changed.notify()

    @torch.inference_mode()
    def _work(self) -> None:
        while self._wait():
            self._drop_cancelled()
            self._take_back(self._running.enter(self._admit()))
            self._take_back(self._running.step())
            for work in list(self._steps):
                self._advance(work)
            self.room = min(self._most, self.room * REGROWTH)
            self._metrics.waiting.set(len(self._queue))
            self._metrics.running.set(self._running.num_rows)
            self._metrics.room.set(self.room)

    def _wait(self) -> bool:
        """Wait for something to do; False if nothing is left to wait for."""
        with self._changed:
            while not (self._queue or self._running or self._steps or self._closing):
                self._changed.wait()
            return bool(self._queue or self._running or self._steps)

    def _drop_cancelled(self) -> None:
        with self._changed:
            gone = self._queue.discard(lambda item: item.ticket.cancelled)
        gone += self._running.drop_cancelled()
        gone += [work for work in self._steps if work.ticket.cancelled]
        self._steps = [work for work in self._steps if not work.ticket.cancelled]
        for item in gone:
            item.fail(RefusedError(499, "cancelled", "The request was given up."))

    def _admit(self) -> list[Unit]:
        """Who enters now: as many as there is room for, and one where nothing is in work."""
        entering: list[Unit] = []
        used = self._running.cost + sum(work.cost for work in self._steps)
        with self._changed:
            while self._queue and (not used or used + self._queue.peek().cost <= self.room):
                item = self._queue.take()
                used += item.cost
                if isinstance(item, Steps):
                    self._steps.append(item)
                else:
                    entering.append(item)
        return entering

    def _advance(self, work: Steps) -> None:
        """A step of other work."""
        try:
            if work.step():
                self._steps.remove(work)
        except torch.OutOfMemoryError:
            self._steps.remove(work)
            self._take_back([work])

    def _take_back(self, lost: Sequence[Unit | Steps]) -> None:
        """Memory ran out: what was lost goes back to the queue, and less is taken on at a time."""
        if not lost:
            return
        self._metrics.out_of_memory.inc()
        self.room = max(1.0, min(self.room, sum(unit.cost for unit in lost)) / 2)
        log.warning("out of memory: %d tokens are taken on at a time now", self.room)
        if len(lost) == 1:
            lost = self._smaller(lost[0])
        with self._changed:
            for item in reversed(lost):
                self._queue.put_back(item.ticket.client, item, item.charge)

    def _smaller(self, lost: Unit | Steps) -> Sequence[Unit | Steps]:
        """What to begin of it: in parts, or when nothing else is in work; nothing, if it had that."""
        parts = lost.parts()
        if len(parts) > 1 or self._running or self._steps:
            return parts
        message = f"{lost.size} tokens do not fit the memory of this server; send a shorter text."
        lost.fail(RefusedError(503, "out_of_memory", message))
        return []
