"""Who may come in: so many requests at a time, and not all of them one client's."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from dspy_diffusion_infill.errors import RefusedError
from dspy_diffusion_infill.serving.limits import Limits
from dspy_diffusion_infill.serving.metrics import Metrics


class Desk:
    """Counts requests in work or waiting, by client.

    Args:
        limits: How many.
        metrics: Told how many there are.

    Example:
        >>> desk = Desk(Limits(requests=1), Metrics())
        >>> with desk.place("me"):
        ...     desk.open
        1
    """

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self._limits, self._metrics = limits, metrics
        self._open: Counter[str] = Counter()
        self._lock = threading.Lock()
        self.seconds = 1.0
        """How long answers took lately: told to who must come again."""

    @property
    def open(self) -> int:
        """Requests in work or waiting."""
        return self._open.total()

    @contextmanager
    def place(self, client: str) -> Iterator[None]:
        """A place for one request, until it is answered.

        Raises:
            RefusedError: If all are taken.
        """
        with self._lock:
            self._check(client)
            self._open[client] += 1
            self._metrics.open.set(self.open)
        try:
            yield
        finally:
            with self._lock:
                self._open[client] -= 1
                self._open += Counter()  # forgets who has none
                self._metrics.open.set(self.open)

    def took(self, seconds: float) -> None:
        """Learn how long an answer took."""
        self.seconds += 0.1 * (seconds - self.seconds)

    def _check(self, client: str) -> None:
        wait = max(1, min(60, round(self.seconds)))
        if self.open >= self._limits.requests:
            message = f"The server has {self.open} requests in work or waiting, as many as it takes."
            raise RefusedError(429, "queue_full", f"{message} Ask again later.", wait)
        if self._open[client] >= self._limits.requests_per_client:
            message = f"This client has {self._open[client]} requests in work or waiting, as many as it may."
            raise RefusedError(429, "too_many_requests", f"{message} Ask again later.", wait)
