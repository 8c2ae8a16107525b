"""A server as a child process: waited for while it starts, ended with all of its own children."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dspy_diffusion_infill.errors import JudgeUnavailableError

POLL_S = 0.25
"""Between two questions whether the server is ready."""
GRACE_S = 15.0
"""For a server to end by itself, before it and its children are killed."""
LEASH = 'exec 3<&0 </dev/null; (cat <&3 >/dev/null; kill -KILL 0) & exec 3<&- "$@"'
"""For /bin/sh: become the server, beside a process that ends the group when this process is no more."""
SHOWN_LINES = 20
"""Of the log, when a server dies."""


_LEASHED: weakref.WeakSet[ServerProcess] = weakref.WeakSet()


class ServerProcess:
    """Runs one command, again if need be, in a process group of its own, which ends as a whole.

    Ctrl-C in a terminal does not reach that group: `stop` ends it, for good. If this process is killed before
    it can, a pipe that closes with it ends the group; forked children of this process do not hold the pipe.

    Args:
        command: What to run.
        env: Its whole environment.
        log: File that gets all it prints; what stands there is kept.

    Example:
        >>> server = ServerProcess(["sleep", "60"], env={}, log=Path(os.devnull))
        >>> server.start(lambda: True, timeout_s=5), server.is_running(), server.stop(), server.is_running()
        (None, True, None, False)
    """

    def __init__(self, command: Sequence[str], *, env: Mapping[str, str], log: Path) -> None:
        self.command, self.env, self.log = list(command), dict(env), log
        self._child: subprocess.Popen[bytes] | None = None
        self._stopped = threading.Event()
        _LEASHED.add(self)

    @property
    def pid(self) -> int | None:
        """Of the server, and of its process group; None if it was never started."""
        return None if self._child is None else self._child.pid

    def is_running(self) -> bool:
        """Whether the server has not ended; its children are not asked."""
        return self._child is not None and self._child.poll() is None

    def start(self, is_ready: Callable[[], bool], timeout_s: float) -> None:
        """Start, and wait until the server answers. What an earlier start left behind is ended first.

        Raises:
            JudgeUnavailableError: If it ends before it answers, or does not answer in time, with the last
                lines of its log; or if it was stopped. Nothing is left running.
        """
        self._end()
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                ["/bin/sh", "-c", LEASH, "sh", *self.command],
                env=self.env,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self.wait(is_ready, timeout_s)
        except BaseException:  # Ctrl-C as well
            self._end()
            raise

    def wait(self, is_ready: Callable[[], bool], timeout_s: float) -> None:
        """Wait until the running server answers.

        Raises:
            JudgeUnavailableError: If it ends first, does not answer in time, or is stopped.
        """
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self._stopped.is_set():
                raise JudgeUnavailableError("The judge's server was stopped.")
            if not self.is_running():
                code = None if self._child is None else self._child.returncode
                raise JudgeUnavailableError(f"The judge's server ended with code {code}.{self.last_lines()}")
            if is_ready() and self.is_running():  # else what answers is another one
                return
            self._stopped.wait(POLL_S)
        raise JudgeUnavailableError(
            f"The judge's server must answer within {timeout_s:g} s; it did not.{self.last_lines()}"
        )

    def last_lines(self) -> str:
        """The end of the log, to be put into an error."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-SHOWN_LINES:]
        return "\n".join([f" The last lines of {self.log}:", *lines]) if lines else ""

    def let_go(self) -> None:
        """In a forked child of this process: leave the server's life to the parent alone."""
        if self._child is not None and self._child.stdin is not None:
            self._child.stdin.close()

    def stop(self) -> None:
        """End the server and all its children, for good: whoever waits for it is told."""
        self._stopped.set()
        self._end()

    def _end(self) -> None:
        if self._child is None:
            return
        self._child.terminate()
        try:
            self._child.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            pass
        finally:  # Ctrl-C while waiting leaves nothing behind either
            _kill_group(self._child.pid)
            self._child.wait()
            if self._child.stdin is not None:
                self._child.stdin.close()


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


def _let_go_of_all() -> None:
    for process in list(_LEASHED):
        process.let_go()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_let_go_of_all)
