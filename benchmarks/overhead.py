"""What the optimizer itself costs: processor time a metric call, and memory over many candidates.

    python -m benchmarks.overhead --json FILE

No LM is asked: the program answers at once, by a rule. What a bare run of it and of the metric takes is
subtracted.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import time
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dspy
from dspy.signatures.signature import make_signature

from benchmarks.checks import parsed
from benchmarks.report import write_json
from dspy_diffusion_infill import Budget, DiffusionInfill, SlidingWindow
from dspy_diffusion_infill.prompts.canvas import Canvas, Denoising, Filling
from dspy_diffusion_infill.prompts.program import signature_of

MARK = 0.2
"""Share of the candidates after which memory is measured first: what is loaded once is there by then."""


class Program(dspy.Module):
    """Right on an example or not, by a hash of the instructions and the review; never on the first one."""

    def __init__(self) -> None:
        super().__init__()
        self.rate = dspy.Predict(make_signature("review -> rating", "Rate the text from 1 to 5, no more."))

    def forward(self, review: str) -> dspy.Prediction:
        """Answer at once."""
        draw = zlib.crc32(f"{signature_of(self.rate).instructions}|{review}".encode())
        return dspy.Prediction(rating=str(draw % 2 if review != "0" else 0))


class Words:
    """An infiller that makes three words up for every filling, and watches the memory."""

    name, context_length = "words", 1 << 30

    def __init__(self) -> None:
        self._filled = 0
        self.memory: list[tuple[int, int]] = []
        """Fillings so far, and bytes of this process, at every window."""

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Words as tokens."""
        starts = [0, *(n + 1 for n, character in enumerate(text) if character == " ")]
        return [(start, start + len(text[start:].split(" ")[0])) for start in starts]

    def num_tokens(self, canvas: Canvas) -> int:
        """Not counted: all fits."""
        return 0

    def infill(self, canvases: Sequence[Canvas], *, num_candidates: int, seed: int) -> list[list[Filling]]:
        """Words by chance."""
        self._filled += num_candidates * len(canvases)
        self.memory.append((self._filled, resident_bytes()))
        draw = random.Random(seed)
        return [
            [
                Filling((" ".join(f"w{draw.randrange(10**6)}" for _ in range(3)),), 0.0, 1)
                for _ in range(num_candidates)
            ]
            for _ in canvases
        ]


def exact(example: dspy.Example, prediction: dspy.Prediction, trace: object = None) -> float:
    """Whether the rating is right."""
    return float(example.rating == prediction.rating)


def resident_bytes() -> int:
    """Memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def bare_seconds(examples: Sequence[dspy.Example], num_runs: int) -> float:
    """Processor time of a run of the program and the metric, with nothing of ours around.

    In a thread, as the optimizer's runs are: DSPy 3.1 looks through the whole stack at every run.
    """
    program = Program()

    def run_all() -> float:
        program(**examples[0].inputs())  # what is loaded at the first run
        with dspy.context(trace=[], disable_history=True):
            start = time.process_time()
            for n in range(num_runs):
                example = examples[n % len(examples)]
                exact(example, program(**example.inputs()))
            return (time.process_time() - start) / num_runs

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run_all).result()


def measure(num_candidates: int, num_examples: int, threads: int, log_dir: Path | None) -> dict[str, float]:
    """Compile once.

    Args:
        num_candidates: Fillings of the whole run.
        num_examples: Validation examples.
        threads: Program runs at a time.
        log_dir: Holds a journal; None keeps none.
    """
    examples = [dspy.Example(review=str(n), rating="1").with_inputs("review") for n in range(num_examples)]
    bare = bare_seconds(examples, 500)
    infiller, batch = Words(), 8
    optimizer = DiffusionInfill(
        exact,
        infiller=infiller,
        masking=SlidingWindow(window=100, mask=3, passes=num_candidates // batch),
        denoising=Denoising(num_candidates=batch),
        budget=Budget(seconds=3600),
        guard=None,
        num_threads=threads,
        log_dir=log_dir,
    )
    cpu, wall = time.process_time(), time.monotonic()
    tuned = optimizer.compile(Program(), trainset=examples)
    cpu, wall = time.process_time() - cpu, time.monotonic() - wall
    calls = vars(tuned)["detailed_results"]["metric_calls"]
    first = next(found for found in infiller.memory if found[0] >= MARK * num_candidates)
    last = infiller.memory[-1]
    return {
        "candidates": last[0],
        "examples": num_examples,
        "threads": threads,
        "metric_calls": calls,
        "bare_ms": 1000 * bare,
        "cpu_ms_a_call": 1000 * (cpu / calls - bare),
        "wall_ms_a_call": 1000 * (wall / calls - bare),
        "megabytes": last[1] / 1e6,
        "bytes_a_candidate": (last[1] - first[1]) / max(1, last[0] - first[0]),
        "memory_growth": last[1] / first[1] - 1,
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--candidates", type=int, default=10_000)
    parser.add_argument("--examples", type=int, default=16)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--log-dir", type=Path, help="keep a journal there")
    parser.add_argument("--json", type=Path)
    given = parsed(parser, None)
    logging.getLogger("dspy").setLevel(logging.ERROR)
    started = time.monotonic()
    row = measure(given.candidates, given.examples, given.threads, given.log_dir)
    for name, value in row.items():
        print(f"{name:20} {value:.4g}")
    if given.json:
        bars = {"cpu_ms_a_call": row["cpu_ms_a_call"], "memory_growth": row["memory_growth"]}
        write_json(given.json, rows=[row], bars=bars, seeds=[0], started=started)


if __name__ == "__main__":
    main()
