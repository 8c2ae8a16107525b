"""A closed gate lets nobody in, and all that were in are out."""

import threading

from dspy_diffusion_infill.search.gate import Gate


def test_closing_waits_for_all_inside_and_then_nobody_enters():
    gate, inside, leave, left = Gate(), threading.Event(), threading.Event(), []

    def visit():
        assert gate.enter()
        inside.set()
        leave.wait()
        left.append("visitor")
        gate.leave()

    threading.Thread(target=visit).start()
    inside.wait()
    threading.Timer(0.05, leave.set).start()
    gate.close()
    assert left == ["visitor"]
    assert not gate.enter()
    assert gate.entered == 1


def test_nobody_is_let_in_while_the_gate_waits():
    gate, closing = Gate(), threading.Event()
    assert gate.enter()
    closer = threading.Thread(target=lambda: (closing.set(), gate.close()))
    closer.start()
    closing.wait()
    while gate.enter():  # until it is closed
        gate.leave()
    gate.leave()
    closer.join(5)
    assert not closer.is_alive()
