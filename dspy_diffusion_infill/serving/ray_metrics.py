"""What a replica counts, in Ray's own metrics: these name the replica, and one page has those of all."""

from __future__ import annotations

import importlib
import threading
from typing import Any

from dspy_diffusion_infill.serving.metrics import Metrics

EVERY_S = 2.0


def mirror(metrics: Metrics) -> None:
    """Keep copying metrics to Ray's, from now on and in a thread.

    Every number is a gauge there, those that only grow too; names begin with `ray_`.
    """
    thread = threading.Thread(target=_copy_on, args=(metrics,), name="diffusion-infill-metrics", daemon=True)
    thread.start()


def _copy_on(metrics: Metrics) -> None:
    gauges: dict[str, Any] = {}
    pause = threading.Event()
    while not pause.wait(EVERY_S):
        copy(metrics, gauges)


def copy(metrics: Metrics, gauges: dict[str, Any]) -> None:
    """Set Ray's gauges to what the metrics are.

    Args:
        metrics: Of this replica.
        gauges: Ray's, by name; what is missing is added.
    """
    kind = importlib.import_module("ray.serve.metrics").Gauge
    for name, labels, value in metrics.samples():
        if name not in gauges:
            gauges[name] = kind(name, tag_keys=tuple(labels))
        gauges[name].set(value, tags=labels)
