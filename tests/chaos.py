"""Compiles that are ended by SIGKILL at random moments and resumed: `python -m tests.chaos FOLDER KILLS`.

Every compile is a process of its own, forked from one that has imported DSPy and started no thread. What
became of them is written to FOLDER/found.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import dspy

from dspy_diffusion_infill import Budget, CompactAdapter, Denoising, DiffusionInfill
from dspy_diffusion_infill.prompts.program import instructions_of
from tests.doubles import ScriptedInfiller, obey, reviews, rule_lm

THREADS = 2
CHANGING = ("seconds", "resumed_calls", "settings", "tokens")
"""What differs between a run and the same one resumed."""


def paid(example, prediction, trace=None):
    """Leaves a byte in a file for every call."""
    with open(os.environ["PAID"], "ab") as file:
        file.write(b".")
    return float(example.rating == prediction.rating)


def slowly(system, user):
    time.sleep(0.003)
    return obey(system, user)


def compile_in(folder: Path) -> None:
    """Compile with a journal in the folder, and write the outcome down there."""
    os.environ["PAID"] = str(folder / "paid")
    optimizer = DiffusionInfill(
        paid,
        infiller=ScriptedInfiller("Be warm", "Judge", "Be warm and five"),
        denoising=Denoising(num_candidates=3),
        budget=Budget(metric_calls=40),
        log_dir=folder,
    )
    student = dspy.Predict(dspy.Signature("review -> rating", "Rate the text."))
    with dspy.context(lm=rule_lm(slowly), adapter=CompactAdapter(), num_threads=THREADS):
        tuned = optimizer.compile(student, trainset=reviews(8))
    results = {name: value for name, value in tuned.detailed_results.items() if name not in CHANGING}
    outcome = [instructions_of(tuned), results, tuned.trial_logs, tuned.candidate_programs]
    resumed = tuned.detailed_results["resumed_calls"]
    (folder / "outcome").write_text(json.dumps({"outcome": outcome, "resumed": resumed}))


def fork(folder: Path) -> int:
    """Compile in a new process; its id."""
    folder.mkdir(exist_ok=True)
    if pid := os.fork():
        return pid
    try:
        compile_in(folder)
    finally:
        os._exit(0)


def journal(folder: Path) -> list[str]:
    """The whole lines of the journal, without the one that says whose it is."""
    file = folder / "journal.jsonl"
    return [] if not file.exists() else file.read_text().split("\n")[1:-1]


def run_until_done(folder: Path, seconds: float, draw: random.Random, most: int) -> dict:
    """Compile in a folder, end the process at a random moment, and so on until one finishes.

    Args:
        folder: Of the run.
        seconds: What the run takes if it is left alone.
        draw: Of the moments.
        most: Kills; after these the next process is left alone.
    """
    kills = lost = 0
    kept: list[str] = []
    while True:
        pid = fork(folder)
        if kills < most:
            time.sleep(draw.uniform(0, seconds))
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        killed = os.WIFSIGNALED(status)
        kills += killed
        found = journal(folder)
        lost += found[: len(kept)] != kept
        if not killed:
            break
        kept = found
    done = json.loads((folder / "outcome").read_text())
    places = [json.dumps(json.loads(line)["at"]) for line in found]
    return {
        "outcome": done["outcome"],
        "kills": kills,
        "lost": lost + len(kept) - done["resumed"],
        "paid_twice": len(places) - len(set(places)),
        "paid_in_vain": len((folder / "paid").read_bytes()) - len(places),
    }


def main(folder: Path, kills: int) -> None:
    """Run until this many kills have landed."""
    start = time.monotonic()
    os.waitpid(fork(folder / "whole"), 0)
    seconds = time.monotonic() - start
    whole = json.loads((folder / "whole" / "outcome").read_text())["outcome"]
    draw, runs = random.Random(0), list[dict]()
    while (left := kills - sum(run["kills"] for run in runs)) > 0:
        runs.append(run_until_done(folder / str(len(runs)), seconds, draw, left))
    for run in runs:
        run["same"] = run.pop("outcome") == whole
    (folder / "found").write_text(json.dumps({"winner": whole[0], "runs": runs}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
