"""Keep from stdout what another optimizer prints, and nothing else that this process prints meanwhile."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, TextIO

_quiet: ContextVar[bool] = ContextVar("quiet", default=False)
_lock, _users = threading.Lock(), list[object]()


class _Stdout:
    """The stdout that was there, which does not hear those that are quiet."""

    def __init__(self, heard: TextIO) -> None:
        self.heard = heard

    def write(self, text: str) -> int:
        return len(text) if _quiet.get() else self.heard.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.heard, name)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drop what is printed in this context; other threads print on."""
    user = object()
    with _lock:
        if not _users:
            sys.stdout = _Stdout(sys.stdout)
        _users.append(user)
    try:
        with _set(True):
            yield
    finally:
        with _lock:
            _users.remove(user)
            if not _users and isinstance(sys.stdout, _Stdout):
                sys.stdout = sys.stdout.heard


def aloud() -> contextlib.AbstractContextManager[None]:
    """Print again within what is quiet: what the user's own code says, or is asked."""
    return _set(False)


@contextlib.contextmanager
def _set(value: bool) -> Iterator[None]:
    token = _quiet.set(value)
    try:
        yield
    finally:
        _quiet.reset(token)
