"""Many callers, one model: batches, turns, leaving early, and running out of memory."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from dspy_diffusion_infill.engine.denoise import denoise
from dspy_diffusion_infill.engine.reverse import Decoding, Task
from dspy_diffusion_infill.errors import CanvasError, RefusedError
from dspy_diffusion_infill.prompts.canvas import Denoising
from dspy_diffusion_infill.serving.metrics import Metrics
from dspy_diffusion_infill.serving.scheduler import Scheduler
from dspy_diffusion_infill.serving.work import Ticket

HOW = Decoding(denoising=Denoising(cache="exact", temperature=1.0))


class Watched:
    """A model that tells how many rows each pass has, and waits where it is told to."""

    def __init__(self, model):
        self._model, self.rows, self.most = model, [], None
        self.go, self.begun = threading.Event(), threading.Event()
        self.go.set()

    def __getattr__(self, name):
        return getattr(self._model, name)

    def logits(self, ids, attention_mask, wanted):
        self.rows.append(len(ids))
        self.begun.set()
        self.go.wait(30)
        if self.most is not None and len(ids) > self.most:
            raise torch.OutOfMemoryError("too much")
        return self._model.logits(ids, attention_mask, wanted)


@pytest.fixture
def watched(tiny):
    return Watched(tiny)


def tasks(model, number, masks=4, candidates=1):
    mask = model.mask_token_id
    return [Task([20 + number, *[mask] * masks, 33], 100 * number + index) for index in range(candidates)]


def asked(scheduler, model, numbers, **what):
    """Several callers at once; what they get."""
    with ThreadPoolExecutor(len(numbers)) as pool:
        found = [
            pool.submit(scheduler.run, Ticket("me"), tasks(model, number, **what), HOW) for number in numbers
        ]
        return [one.result(60) for one in found]


def test_callers_share_batches_and_get_what_they_would_alone(watched, tiny):
    watched.go.clear()
    with Scheduler(watched, Metrics()) as scheduler, ThreadPoolExecutor(9) as pool:
        first = pool.submit(scheduler.run, Ticket("me"), tasks(tiny, 0), HOW)
        assert watched.begun.wait(30)
        others = [pool.submit(scheduler.run, Ticket("me"), tasks(tiny, n), HOW) for n in range(1, 9)]
        while len(scheduler._queue) < 8:
            time.sleep(0.01)
        watched.go.set()
        found = [one.result(60) for one in (first, *others)]
    # the first caller's first two steps, the others' first step, and then all together
    assert watched.rows[:4] == [1, 1, 8, 9]
    for number, (filled,) in enumerate(found):
        assert filled.ids == denoise(tiny, tasks(tiny, number), HOW)[0].ids


def test_canvases_of_another_size_do_not_share_a_batch(watched, tiny):
    watched.go.clear()
    with Scheduler(watched, Metrics()) as scheduler, ThreadPoolExecutor(2) as pool:
        short = pool.submit(scheduler.run, Ticket("me"), tasks(tiny, 1, masks=2), HOW)
        assert watched.begun.wait(30)
        long = pool.submit(scheduler.run, Ticket("me"), tasks(tiny, 2, masks=12), HOW)
        while not len(scheduler._queue):
            time.sleep(0.01)
        watched.go.set()
        assert (len(short.result(60)), len(long.result(60))) == (1, 1)
    assert set(watched.rows) == {1}


def test_a_caller_who_leaves_frees_the_batch(watched, tiny):
    watched.go.clear()
    with Scheduler(watched, Metrics()) as scheduler, ThreadPoolExecutor(2) as pool:
        leaving, staying = Ticket("me"), Ticket("me")
        left = pool.submit(scheduler.run, leaving, tasks(tiny, 1, masks=40), HOW)
        assert watched.begun.wait(30)
        waits = pool.submit(scheduler.run, staying, tasks(tiny, 2, masks=4), HOW)
        leaving.cancel()
        watched.go.set()
        with pytest.raises(RefusedError, match="given up"):
            left.result(60)
        assert len(waits.result(60)) == 1
        assert scheduler._running.cost == 0
    assert len(watched.rows) < 12


def test_a_caller_who_left_the_queue_is_never_begun(watched, tiny):
    watched.go.clear()
    with Scheduler(watched, Metrics(), max_tokens=1) as scheduler, ThreadPoolExecutor(2) as pool:
        first = pool.submit(scheduler.run, Ticket("me"), tasks(tiny, 1), HOW)
        assert watched.begun.wait(30)
        leaving = Ticket("me")
        left = pool.submit(scheduler.run, leaving, tasks(tiny, 2), HOW)
        while not len(scheduler._queue):
            time.sleep(0.01)
        leaving.cancel()
        watched.go.set()
        assert len(first.result(60)) == 1
        with pytest.raises(RefusedError):
            left.result(60)
    assert len(watched.rows) == 4


def test_when_memory_runs_out_less_is_taken_on_and_nothing_is_lost(watched, tiny):
    metrics = Metrics()
    watched.most = 3
    with Scheduler(watched, metrics) as scheduler:
        before = scheduler.room
        found = asked(scheduler, watched, range(8), candidates=2)
        assert scheduler.room < before / 10
    assert b"diffusion_infill_out_of_memory_total 0.0" not in metrics.text()
    for number, filled in enumerate(found):
        alone = denoise(tiny, tasks(tiny, number, candidates=2), HOW)
        assert [one.ids for one in filled] == [one.ids for one in alone]


def test_candidates_that_do_not_fit_at_once_are_filled_in_turn(watched, tiny):
    watched.most = 1
    with Scheduler(watched, Metrics()) as scheduler:
        ((*found,),) = asked(scheduler, watched, [1], candidates=3)
    alone = denoise(tiny, tasks(tiny, 1, candidates=3), HOW)
    assert [one.ids for one in found] == [one.ids for one in alone]


def test_one_canvas_too_large_for_the_memory_is_refused_and_the_server_goes_on(watched, tiny):
    with Scheduler(watched, Metrics()) as scheduler:
        watched.most = 0
        with pytest.raises(RefusedError, match=r"^6 tokens do not fit the memory"):
            scheduler.run(Ticket("me"), tasks(tiny, 1), HOW)
        watched.most = None
        assert len(scheduler.run(Ticket("me"), tasks(tiny, 1), HOW)) == 1


def test_a_failing_batch_tells_its_callers_and_the_next_one_works(watched, tiny, monkeypatch, caplog):
    with Scheduler(watched, Metrics()) as scheduler:
        with monkeypatch.context() as broken:
            broken.setattr(Watched, "logits", lambda self, *rest: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                scheduler.run(Ticket("me"), tasks(tiny, 1), HOW)
        assert len(scheduler.run(Ticket("me"), tasks(tiny, 1), HOW)) == 1
        assert scheduler.alive
    assert "a batch failed" in caplog.text


def test_turns_are_taken_between_clients(watched, tiny):
    watched.go.clear()
    ended = []

    def run(client, number):
        scheduler.run(Ticket(client), tasks(tiny, number), HOW)
        ended.append(client)

    with Scheduler(watched, Metrics(), max_tokens=1) as scheduler, ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(run, "greedy", number) for number in range(6)]
        while len(scheduler._queue) < 5:
            time.sleep(0.01)
        waiting.append(pool.submit(run, "modest", 7))
        while len(scheduler._queue) < 6:
            time.sleep(0.01)
        watched.go.set()
        for one in waiting:
            one.result(60)
    assert ended.index("modest") <= 2


def test_a_scheduler_that_stops_finishes_what_it_has_and_takes_no_more(watched, tiny):
    watched.go.clear()
    with ThreadPoolExecutor(1) as pool:
        with Scheduler(watched, Metrics()) as scheduler:
            begun = pool.submit(scheduler.run, Ticket("me"), tasks(tiny, 1), HOW)
            assert watched.begun.wait(30)
            watched.go.set()
        assert len(begun.result(60)) == 1
    assert not scheduler.alive
    with pytest.raises(RefusedError, match="stopping"):
        scheduler.run(Ticket("me"), tasks(tiny, 1), HOW)


def test_other_work_gets_its_turn_a_step_at_a_time(watched, tiny):
    def steps():
        for _ in range(3):
            order.append("step")
            yield
        return "done"

    def failing():
        yield
        raise CanvasError("no")

    order = []
    with Scheduler(watched, Metrics()) as scheduler:
        assert scheduler.run_steps(Ticket("me"), steps, 1.0) == "done"
        with pytest.raises(CanvasError, match="no"):
            scheduler.run_steps(Ticket("me"), failing, 1.0)
        assert len(scheduler.run(Ticket("me"), tasks(tiny, 1), HOW)) == 1
    assert order == ["step"] * 3


def test_nothing_to_do_is_done_at_once(tiny):
    with Scheduler(tiny, Metrics()) as scheduler:
        assert scheduler.run(Ticket("me"), [], HOW) == []


def test_other_work_of_any_size_keeps_nobody_waiting(watched, tiny):
    begun, answered = threading.Event(), threading.Event()

    def steps():
        begun.set()
        while not answered.is_set():
            yield

    with Scheduler(watched, Metrics()) as scheduler, ThreadPoolExecutor(1) as pool:
        large = pool.submit(scheduler.run_steps, Ticket("large"), steps, 100 * scheduler.room)
        assert begun.wait(30)
        try:
            assert len(pool_run(scheduler, tiny)) == 1
        finally:
            answered.set()
        large.result(30)


def pool_run(scheduler, tiny):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(scheduler.run, Ticket("small"), tasks(tiny, 1), HOW).result(30)


def test_a_client_pays_for_all_that_is_read_of_its_texts(watched, tiny):
    """Who had a small step of a long score waits behind who had less."""
    watched.go.clear()
    ended = []

    def score(client, tokens):
        scheduler.run_steps(Ticket(client), lambda: iter_of(client), tokens)

    def iter_of(client):
        ended.append(client)
        yield

    with Scheduler(watched, Metrics(), max_tokens=1) as scheduler, ThreadPoolExecutor(8) as pool:
        first = pool.submit(scheduler.run, Ticket("first"), tasks(tiny, 1), HOW)
        assert watched.begun.wait(30)
        waiting = []
        for client, tokens in (("a", 1000.0), ("a", 1.0), ("b", 10.0), ("b", 1.0)):
            waiting.append(pool.submit(score, client, tokens))
            while len(scheduler._queue) < len(waiting):
                time.sleep(0.01)
        watched.go.set()
        for one in (first, *waiting):
            one.result(30)
    assert ended == ["a", "b", "b", "a"]


def test_other_work_that_ran_out_of_memory_is_begun_anew_when_it_is_alone(watched, tiny):
    watched.go.clear()
    begun = []

    def steps():
        begun.append(scheduler._running.num_rows)
        yield
        if len(begun) == 1:
            raise torch.OutOfMemoryError("too much")
        return "done"

    with Scheduler(watched, Metrics()) as scheduler, ThreadPoolExecutor(2) as pool:
        beside = pool.submit(scheduler.run, Ticket("me"), tasks(tiny, 1, masks=40), HOW)
        assert watched.begun.wait(30)
        before = scheduler.room
        found = pool.submit(scheduler.run_steps, Ticket("me"), steps, 10.0)
        while not len(scheduler._queue):
            time.sleep(0.01)
        watched.go.set()
        assert found.result(30) == "done"
        assert len(beside.result(30)) == 1
        assert scheduler.room < before
    assert begun == [1, 0]


def test_other_work_that_never_fits_is_refused(watched):
    def steps():
        yield
        raise torch.OutOfMemoryError("too much")

    with Scheduler(watched, Metrics()) as scheduler:
        with pytest.raises(RefusedError, match=r"^10 tokens do not fit the memory of this server"):
            scheduler.run_steps(Ticket("me"), steps, 10.0)
        assert scheduler.alive


def test_a_canvas_that_did_not_fit_beside_others_waits_for_them(watched, tiny):
    answered = threading.Event()

    def steps():
        while not answered.is_set():
            yield

    with Scheduler(watched, Metrics()) as scheduler, ThreadPoolExecutor(2) as pool:
        beside = pool.submit(scheduler.run_steps, Ticket("me"), steps, 1.0)
        watched.most = 0
        waits = pool.submit(scheduler.run, Ticket("me"), tasks(tiny, 1), HOW)
        while scheduler.room > 10:
            time.sleep(0.01)
        watched.most = None
        answered.set()
        assert len(waits.result(30)) == 1
        beside.result(30)


def test_a_canvas_beyond_the_context_is_refused_before_it_waits(watched, tiny):
    with Scheduler(watched, Metrics()) as scheduler, pytest.raises(CanvasError, match="at most 128 tokens"):
        scheduler.run(Ticket("me"), tasks(tiny, 1, masks=200), HOW)
    assert watched.rows == []
