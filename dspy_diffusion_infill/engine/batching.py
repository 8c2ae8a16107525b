"""Requests of many threads become few batches."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")

_PAUSE_S = 0.002
_MAX_WAIT_S = 0.02


class MicroBatcher(Generic[Job, Result]):
    """Runs jobs of concurrent callers together, one batch at a time, in a caller's own thread.

    Jobs that arrive while a batch runs wait for the next one; before a batch starts, callers that are about
    to arrive get a few milliseconds. There is no thread of its own to start or stop. If a batch raises, each
    of its callers gets the exception.

    Args:
        run: Takes the jobs of a batch, returns their results in order.

    Example:
        >>> batcher = MicroBatcher(lambda jobs: [2 * job for job in jobs])
        >>> batcher.wait(batcher.submit(21))
        42
    """

    def __init__(self, run: Callable[[Sequence[Job]], Sequence[Result]]) -> None:
        self._run = run
        self._waiting: list[tuple[Job, Future[Result]]] = []
        self._arriving = threading.Lock()
        self._running = threading.Lock()

    def submit(self, job: Job) -> Future[Result]:
        """Queue a job; it runs when someone waits."""
        future: Future[Result] = Future()
        with self._arriving:
            self._waiting.append((job, future))
        return future

    def wait(self, future: Future[Result]) -> Result:
        """The result of a queued job; runs the queue if nobody else has done so."""
        with self._running:
            if not future.done():
                self._gather()
                self._run_waiting()
        return future.result()

    def _gather(self) -> None:
        """Pause until no more jobs arrive, though not for long."""
        deadline = time.monotonic() + _MAX_WAIT_S
        arrived = 0
        while arrived < len(self._waiting) and time.monotonic() < deadline:
            arrived = len(self._waiting)
            time.sleep(_PAUSE_S)

    def _run_waiting(self) -> None:
        with self._arriving:
            batch, self._waiting = self._waiting, []
        try:
            results = self._run([job for job, _ in batch])
        except BaseException as error:  # noqa: BLE001  (handed to every caller, who would wait forever)
            for _, future in batch:
                future.set_exception(error)
            return
        for (_, future), result in zip(batch, results, strict=True):
            future.set_result(result)
