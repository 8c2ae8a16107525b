"""One shape for every result: what ran, the rows that were printed, and the bars."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("dspy", "torch", "transformers", "dspy-diffusion-infill")


def write_json(
    path: Path,
    *,
    rows: Sequence[Mapping[str, Any]],
    bars: Mapping[str, float],
    seeds: Sequence[int],
    started: float,
) -> None:
    """Write a result file, whole or not at all.

    Args:
        path: Of the file.
        rows: What was printed.
        bars: Bar name to measured number; a bar that was not measured is absent.
        seeds: Of the runs.
        started: `time.monotonic()` at the start.
    """
    meta = {
        "command": " ".join(["python", "-m", _module(), *sys.argv[1:]]),
        "commit": _commit(),
        "date": time.strftime("%Y-%m-%d"),
        "seconds": round(time.monotonic() - started, 1),
        "seeds": list(seeds),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "hardware": {"processor": _processor(), "cores": os.cpu_count()},
    }
    text = json.dumps({"meta": meta, "rows": list(rows), "bars": dict(bars)}, indent=1, ensure_ascii=False)
    unfinished = path.with_name(path.name + ".tmp")
    unfinished.write_text(text + "\n", encoding="utf-8")
    os.replace(unfinished, path)


def _module() -> str:
    spec = sys.modules["__main__"].__spec__
    return spec.name if spec else Path(sys.argv[0]).name


def _commit() -> str | None:
    """The commit that ran, with a plus sign if files differ from it."""
    here = Path(__file__).parent
    try:
        head = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True
        )
        dirty = subprocess.run(
            ["git", "status", "--porcelain"], cwd=here, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip()[:12] + ("+" if dirty.stdout.strip() else "")


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [
        line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
    ]
    return names[0] if names else platform.processor()
