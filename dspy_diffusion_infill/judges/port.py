"""A port for a judge's server, that no other one of this user takes while it starts."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.file_lock import lock_file

PORTS = range(20_000, 30_000)
LAST = 65_535


@contextlib.contextmanager
def held_port(host: str, wanted: int | None, judge: str) -> Iterator[int]:
    """A port that nothing listens on; without a wish, the same for the same judge where it can be.

    A search that is resumed knows its LM by its address as well. A server listens only once its model is
    loaded: until then, and while it is started anew, a lock keeps the port from servers of other blocks.

    Raises:
        SettingsError: If the wanted one is taken or no port, or the host is not this machine's.
    """
    if wanted is not None and not 0 <= wanted <= LAST:
        raise SettingsError(f"port must be from 0 to {LAST}; got {wanted}.")
    for port in (PORTS[int(judge[:8], 16) % len(PORTS)], 0) if wanted is None else (wanted,):
        with contextlib.ExitStack() as held:
            found = _free(host, port)
            if found is not None and _is_locked(found, held):
                yield found
                return
    raise SettingsError(f"port must be free; got {wanted}. To use what runs there, give its url.")


def _free(host: str, port: int) -> int | None:
    """The port, or any for 0; None if it is taken."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(address)
            return tried.getsockname()[1]
    except (OSError, UnicodeError) as error:
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            return None
        raise SettingsError(
            f"host and port must be ones to listen on here; got {host}, {port}: {error}."
        ) from error


def _is_locked(port: int, held: contextlib.ExitStack) -> bool:
    """Whether this process got the port's lock; the system drops it with the process."""
    path = Path(tempfile.gettempdir(), f"judge-port-{os.getuid()}-{port}")
    file = held.enter_context(path.open("a"))
    try:
        lock_file(file)
    except OSError:
        return False
    return True
