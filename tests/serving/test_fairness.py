"""Whose turn it is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspy_diffusion_infill.serving.fairness import FairQueue


def filled(*items):
    queue = FairQueue()
    for client, item, cost in items:
        queue.put(client, item, cost)
    return queue


def test_a_client_with_much_to_do_does_not_keep_others_waiting():
    queue = filled(*[("greedy", f"g{n}", 5) for n in range(4)], ("modest", "m", 5))
    assert [queue.take() for _ in range(5)] == ["g0", "m", "g1", "g2", "g3"]


def test_turns_are_weighed_by_cost():
    queue = filled(*[("long", "l", 6)] * 2, *[("short", "s", 2)] * 5)
    assert "".join(queue.take() for _ in range(7)) == "lssslss"


def test_who_comes_late_neither_waits_for_the_past_nor_is_paid_for_it():
    queue = filled(*[("old", "o", 1)] * 10)
    for _ in range(4):
        queue.take()
    for _ in range(4):
        queue.put("new", "n", 1)
    assert "".join(queue.take() for _ in range(6)) in ("nonono", "onnono")


def test_what_is_put_back_is_next_again_and_not_paid_twice():
    queue = filled(("a", "a1", 3), ("a", "a2", 3), ("b", "b1", 3))
    assert queue.take() == "a1"
    queue.put_back("a", "a1", 3)
    assert (queue.peek(), [queue.take() for _ in range(3)]) == ("a1", ["a1", "b1", "a2"])


def test_what_is_unwanted_is_taken_out():
    queue = filled(("a", 1, 1), ("a", 2, 1), ("b", 3, 1))
    assert queue.discard(lambda item: item != 2) == [1, 3]
    assert (len(queue), queue.take(), len(queue)) == (1, 2, 0)


def test_nothing_is_remembered_of_clients_that_are_gone():
    queue = FairQueue()
    for number in range(1000):
        queue.put(f"client {number}", number, 1)
        assert queue.take() == number
    assert len(queue._served) <= 2


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 9)), min_size=1))
def test_while_all_wait_none_gets_ahead_by_more_than_one_item(wanted):
    queue = filled(*[(client, (client, cost), cost) for client, cost in wanted])
    served, left = dict.fromkeys("abc", 0), {c: sum(client == c for client, _ in wanted) for c in "abc"}
    waiting = [client for client in "abc" if left[client]]
    while all(left[client] for client in waiting):
        client, cost = queue.take()
        served[client] += cost
        left[client] -= 1
        assert max(served[c] for c in waiting) - min(served[c] for c in waiting) <= 9


def test_an_empty_queue_has_no_next():
    with pytest.raises(ValueError, match="empty"):
        FairQueue().take()
