"""One shape for every result: what ran, the rows that were printed, and the bars."""

from __future__ import annotations

import json
import math
import os
import platform
import shlex
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
        rows: What was printed; a number that is not finite becomes null.
        bars: Bar name to measured number; a bar that was not measured, or is not finite, is absent.
        seeds: Of the runs.
        started: `time.monotonic()` at the start.
    """
    meta = {
        "command": shlex.join(["python", "-m", _module(), *sys.argv[1:]]),
        "commit": COMMIT,
        "date": time.strftime("%Y-%m-%d"),
        "seconds": round(time.monotonic() - started, 1),
        "seeds": list(seeds),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "hardware": {"processor": _processor(), "cores": os.cpu_count(), **_gpus()},
    }
    known = {name: value for name, value in bars.items() if math.isfinite(value)}
    found = {"meta": meta, "rows": _plain(rows), "bars": known}
    text = json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False)
    unfinished(path).write_text(text + "\n", encoding="utf-8")
    os.replace(unfinished(path), path)


def unfinished(path: Path) -> Path:
    """Where a file is written before it takes its name."""
    return path.with_name(path.name + ".tmp")


def _plain(value: Any) -> Any:
    """The same with null for a number that is none, which JSON cannot tell."""
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


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


COMMIT = _commit()
"""Before anything is measured: files may change while a benchmark runs."""


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _gpus() -> dict[str, str]:
    """The GPUs that torch could use, if it was loaded."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return {}
    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return {"gpus": ", ".join(names)}
