"""Who has begun, when nobody may begin any more."""

from __future__ import annotations

import threading


class Gate:
    """Lets threads in until it is closed, and is closed only once all have left.

    A pool does not wait for a thread that it was just starting when Ctrl-C came.

    Example:
        >>> gate = Gate()
        >>> gate.enter(), gate.leave(), gate.close(), gate.enter(), gate.entered
        (True, None, None, False, 1)
    """

    def __init__(self) -> None:
        self._changed, self._inside, self._closed = threading.Condition(), 0, False
        self.entered = 0
        """How many were let in."""

    def enter(self) -> bool:
        """Whether the caller is let in; it must leave then."""
        with self._changed:
            if not self._closed:
                self._inside, self.entered = self._inside + 1, self.entered + 1
            return not self._closed

    def leave(self) -> None:
        """Say that the caller is done."""
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()

    def close(self) -> None:
        """Let nobody in any more, and wait for those inside."""
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: not self._inside)
