"""What a served model does for many clients, against the same work one request at a time.

    python -m benchmarks.serve_load --json FILE

Every client fills windows of 8 tokens in an instruction of 200, one canvas a request, and sends the next
request when it has the answer. One request at a time is one client of the same server, with the same
canvases, seeds and cache mode. With distinct contexts each canvas has few-shot examples of its own (mode
window); with a shared one all have the same (mode context, which computes them once, on both sides).
Throughput is filled tokens a second; the ratio is of medians over rounds, in which numbers of clients take
turns. Fairness is the most tokens that a client got over the least, in a fixed time in which one client in
four sends four times as many canvases a request as the others, and all have as much outstanding.
"""

from __future__ import annotations

import argparse
import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import uvicorn

from benchmarks.checks import parsed
from benchmarks.infilling import canvases as windows
from benchmarks.report import write_json
from benchmarks.tasks import generated_reviews
from dspy_diffusion_infill.engine.model import TextModel, load
from dspy_diffusion_infill.prompts.canvas import CacheMode, Canvas, Denoising, Message
from dspy_diffusion_infill.serving.client import RemoteInfiller
from dspy_diffusion_infill.serving.connection import PunctualProtocol
from dspy_diffusion_infill.serving.server import create_app

CLIENTS = (1, 8, 32)
INSTRUCTION_TOKENS, SHOTS, LONG = 200, 4, 40
"""LONG: sentences that make more tokens than the instruction has."""


@dataclass
class Load:
    """What was measured with one number of clients."""

    tokens_per_second: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)

    def row(self) -> dict[str, Any]:
        """For the table."""
        hundredths = quantiles(self.latencies, n=100) if len(self.latencies) > 1 else self.latencies * 99
        return {
            "tokens_per_second": self.tokens_per_second,
            "p50_s": hundredths[49],
            "p99_s": hundredths[98],
            "requests": len(self.latencies),
        }


@contextmanager
def served(model: TextModel) -> Iterator[str]:
    """A server in a thread; its URL."""
    config = uvicorn.Config(
        create_app(model, name="served"), port=0, http=PunctualProtocol, ws="none", log_level="error"
    )
    server, listening = uvicorn.Server(config), config.bind_socket()
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])))
    thread.start()
    try:
        while thread.is_alive() and not server.started:
            time.sleep(0.05)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def work(model: TextModel, number: int, *, shared: bool) -> list[Canvas]:
    """Windows of one instruction in turn, each with examples of its own, or all with the same ones."""
    sentences = [text for text, _ in generated_reviews(LONG + SHOTS * (number + 1))]
    words = " ".join(sentences[:LONG])
    instructions = words[: model.vocabulary.offsets(words)[INSTRUCTION_TOKENS - 1][1]]
    rows: list[Canvas] = []
    for index in range(number):
        first = LONG + SHOTS * (0 if shared else 1 + index)
        turns = [
            turn
            for text in sentences[first : first + SHOTS]
            for turn in (Message.text("user", text), Message.text("assistant", "4"))
        ]
        every = windows(model.vocabulary, instructions, turns)
        rows.append(every[index % len(every)])
    return rows


def measure(url: str, rows: Sequence[Canvas], cache: CacheMode, clients: int, load: Load) -> None:
    """All canvases, by so many clients at once."""
    left, taking = iter(enumerate(rows)), threading.Lock()

    def client(_: int) -> tuple[int, list[float]]:
        tokens, seconds = 0, []
        with RemoteInfiller(url, denoising=Denoising(cache=cache)) as infiller:
            while True:
                with taking:
                    index, row = next(left, (None, None))
                if row is None or index is None:
                    return tokens, seconds
                started = time.perf_counter()
                ((filling,),) = infiller.infill([row], num_candidates=1, seed=index)
                seconds.append(time.perf_counter() - started)
                tokens += sum(map(len, filling.confidences))

    started = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        found = list(pool.map(client, range(clients)))
    load.tokens_per_second.append(sum(tokens for tokens, _ in found) / (time.perf_counter() - started))
    load.latencies += [one for _, seconds in found for one in seconds]


def measure_fairness(url: str, rows: Sequence[Canvas], seconds: float) -> float:
    """The most tokens of a client over the least; every fourth one sends four canvases a request."""
    stop = time.perf_counter() + seconds

    def client(number: int) -> int:
        size, tokens = (4 if number % 4 == 0 else 1), 0
        with (
            RemoteInfiller(url, denoising=Denoising(cache="window")) as infiller,
            ThreadPoolExecutor(4) as pool,
        ):

            def ask(seed: int) -> int:
                done = 0
                while time.perf_counter() < stop:
                    found = infiller.infill(rows[:size], num_candidates=1, seed=seed)
                    done += sum(len(part) for each in found for one in each for part in one.confidences)
                return done

            tokens += sum(pool.map(ask, range(1 if size == 4 else 4)))
        return tokens

    with ThreadPoolExecutor(8) as pool:
        tokens = list(pool.map(client, range(8)))
    return max(tokens) / max(1, min(tokens))


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="file for the result")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--canvases", type=int, default=64, help="a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--fairness-seconds", type=float, default=30.0, help="0 leaves it out")
    options = parsed(parser, arguments)
    started = time.monotonic()
    model = load(options.model)
    table, bars = [], {}
    modes: tuple[tuple[str, bool, CacheMode], ...] = (("", False, "window"), ("_shared", True, "context"))
    with served(model) as url:
        for name, shared, cache in modes:
            rows = work(model, options.canvases, shared=shared)
            loads = {clients: Load() for clients in CLIENTS}
            measure(url, rows[:2], cache, 1, Load())  # warm up
            for _ in range(options.rounds):
                for clients, load_ in loads.items():
                    measure(url, rows, cache, clients, load_)
            table += [{"contexts": name or "distinct", "clients": n, **one.row()} for n, one in loads.items()]
            alone = median(loads[1].tokens_per_second)
            for clients in CLIENTS[1:]:
                ratio = median(loads[clients].tokens_per_second) / alone
                bars[f"throughput_ratio{name}_{clients}"] = ratio
        if options.fairness_seconds:
            bars["fairness"] = measure_fairness(url, work(model, 4, shared=False), options.fairness_seconds)
    for row in table:
        print(row)
    for name, value in bars.items():
        print(f"{name:<28}{value:>8.3f}")
    if options.json:
        write_json(options.json, rows=table, bars=bars, seeds=[0], started=started)


if __name__ == "__main__":
    main()
