"""Keep a file for one process; the system lets it go with the process, however that ends.

Pure: no dspy, no torch.
"""

from __future__ import annotations

import os
import sys
from typing import IO, Any

if sys.platform == "win32":
    import msvcrt

    def lock_file(file: IO[Any]) -> None:
        """Keep a file for this process; `OSError` if another one has it."""
        os.lseek(file.fileno(), 1 << 20, os.SEEK_SET)  # off the text, which others may read
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def lock_file(file: IO[Any]) -> None:
        """Keep a file for this process; `OSError` if another one has it."""
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
