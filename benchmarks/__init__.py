"""Benchmarks: `python -m benchmarks.NAME --json FILE`. Not in the wheel."""

import os
from pathlib import Path

DATA = Path(os.environ.get("DIFFUSION_INFILL_DATA", "../shared/data"))
"""Folder of the data, where a command does not name one."""
