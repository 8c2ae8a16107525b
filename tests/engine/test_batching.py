from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from dspy_diffusion_infill.engine import batching
from dspy_diffusion_infill.engine.batching import MicroBatcher


def test_jobs_that_wait_together_run_together_and_keep_their_results():
    batches = []

    def double(jobs):
        batches.append(len(jobs))
        return [2 * job for job in jobs]

    batcher = MicroBatcher(double)
    futures = [batcher.submit(job) for job in range(32)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(batcher.wait, futures)) == [2 * job for job in range(32)]
    assert batches == [32]


def test_jobs_that_arrive_during_a_batch_share_the_next_one():
    batches = []
    started, go_on = threading.Event(), threading.Event()

    def slow(jobs):
        batches.append(sorted(jobs))
        started.set()
        assert go_on.wait(10)
        return jobs

    batcher = MicroBatcher(slow)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(batcher.wait, batcher.submit(0))
        assert started.wait(10)
        rest = [pool.submit(batcher.wait, batcher.submit(job)) for job in (1, 2, 3)]
        go_on.set()
        assert [first.result(10), *(each.result(10) for each in rest)] == [0, 1, 2, 3]
    assert batches == [[0], [1, 2, 3]]


def test_callers_about_to_arrive_are_waited_for(monkeypatch):
    batches = []
    batcher = MicroBatcher(lambda jobs: (batches.append(list(jobs)), jobs)[1])
    late = []
    monkeypatch.setattr(batching.time, "sleep", lambda _: late or late.append(batcher.submit("late")))
    assert batcher.wait(batcher.submit("early")) == "early"
    assert batcher.wait(late[0]) == "late"
    assert batches == [["early", "late"]]


def test_a_batch_that_raises_tells_every_caller_and_the_next_one_runs():
    def picky(jobs):
        if "bad" in jobs:
            raise ValueError("no good")
        return jobs

    batcher = MicroBatcher(picky)
    futures = [batcher.submit(job) for job in ("good", "bad")]
    for future in futures:
        with pytest.raises(ValueError, match="no good"):
            batcher.wait(future)
    assert batcher.wait(batcher.submit("fine")) == "fine"
