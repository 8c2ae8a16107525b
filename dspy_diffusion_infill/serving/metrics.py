"""What a server counts, for Prometheus."""

from __future__ import annotations

import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """Counters of one server; texts, keys and addresses are in none of them.

    Example:
        >>> metrics = Metrics()
        >>> metrics.out_of_memory.inc()
        >>> "diffusion_infill_out_of_memory_total 1.0" in metrics.text().decode()
        True
    """

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        prefix = "diffusion_infill"
        self.requests = Counter(
            f"{prefix}_requests", "Requests answered.", ["route", "status"], registry=registry
        )
        self.seconds = Histogram(
            f"{prefix}_request_seconds", "From request to answer.", ["route"], buckets=SECONDS,
            registry=registry,
        )  # fmt: skip
        self.tokens = Counter(
            f"{prefix}_tokens", "Tokens read (prompt) and written (completion).", ["kind"], registry=registry
        )
        self.open = Gauge(f"{prefix}_open_requests", "Requests in work or waiting.", registry=registry)
        self.cancelled = Counter(f"{prefix}_cancelled_requests", "Clients that left.", registry=registry)
        self.waiting = Gauge(f"{prefix}_waiting_canvases", "Canvases not begun.", registry=registry)
        self.running = Gauge(f"{prefix}_running_rows", "Rows in the batches.", registry=registry)
        self.room = Gauge(f"{prefix}_room_tokens", "Tokens taken on at a time, at most.", registry=registry)
        self.row_passes = Counter(f"{prefix}_row_passes", "Rows that took a step.", registry=registry)
        self.out_of_memory = Counter(f"{prefix}_out_of_memory", "Batches given up.", registry=registry)

    def samples(self) -> Iterator[tuple[str, dict[str, str], float]]:
        """Every number, with its name and labels."""
        for family in self._registry.collect():
            for sample in family.samples:
                if not sample.name.endswith("_created"):
                    yield sample.name, sample.labels, sample.value

    def text(self) -> bytes:
        """Everything, as Prometheus reads it."""
        return generate_latest(self._registry)


class Counted:
    """ASGI middleware that counts answers and their seconds, by path and status.

    Args:
        app: What answers.
        metrics: What counts.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.monotonic(), "none"

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except Exception:
            status = "500" if status == "none" else status  # what is answered farther outside
            raise
        finally:
            # the route that matched: a path that none did is the client's own word, and there are many
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(route, status).inc()
            self._metrics.seconds.labels(route).observe(time.monotonic() - started)
