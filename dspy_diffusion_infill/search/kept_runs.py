"""Runs that are paid for, and found again by a later process of the same run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dspy

from dspy_diffusion_infill.search.budget import Meter
from dspy_diffusion_infill.search.fingerprint import digest
from dspy_diffusion_infill.search.harvest import snapshot
from dspy_diffusion_infill.search.journal import Journal
from dspy_diffusion_infill.search.running import Run
from dspy_diffusion_infill.search.saying import logger
from dspy_diffusion_infill.search.trace_records import TraceRecords

Prompt = tuple[tuple[str, str], ...]
Place = tuple[Prompt, int]
"""A candidate, by its key, and the number of an example."""

PLAIN = ("score", "feedback", "failure", "unscored")
"""What JSON holds of every run."""


class KeptRuns:
    """The runs of one program's candidates in a journal.

    Args:
        journal: None keeps nothing.
        program: All but its instructions tells its runs from those of another.
        role: Of the examples.
        meter: Learns what an earlier process had used.
    """

    def __init__(self, journal: Journal | None, program: dspy.Module, role: str, meter: Meter) -> None:
        self._journal, self._role, self._meter = journal, role, meter
        self._traces = TraceRecords(program)
        own = snapshot(program, {})
        self._program = digest([own.demos, own.models, own.kind])
        self.num_found = 0
        """Runs that an earlier process had paid for."""
        self._told = False

    def keep(self, place: Place, run: Run) -> None:
        """Write a run down."""
        if self._journal is not None:
            used = {"tokens": self._meter.tokens, "usd": self._meter.usd}
            plain = {name: getattr(run, name) for name in PLAIN}
            trace = None if run.trace is None else self._traces.pack(run.trace)
            called = None if run.called is None else sorted(run.called)
            kept = {"traced": run.trace is not None, "trace": trace, "called": called}
            self._journal.write(self._at(place), {**plain, **kept, **used})

    def find(self, place: Place, *, needs_trace: bool) -> Run | None:
        """The run that an earlier process paid for, if any; one without a trace where none is needed.

        A trace that JSON could not hold is empty; its run is not paid for again.
        """
        record = self._journal.find(self._at(place)) if self._journal is not None else None
        if record is None or (needs_trace and record["score"] is not None and not record["traced"]):
            return None
        self._tell_of_lost_trace(record)
        self._meter.catch_up(tokens=record["tokens"], usd=record["usd"])
        self.num_found += 1
        trace = self._traces.unpack(record["trace"] or ()) if record["traced"] else None
        called = None if record["called"] is None else frozenset(record["called"])
        return Run(**{name: record[name] for name in PLAIN}, trace=trace, called=called)

    def _tell_of_lost_trace(self, record: Mapping[str, Any]) -> None:
        """Say it once, where it makes a difference."""
        if record["traced"] and record["trace"] is None and not self._told:
            self._told = True
            logger.warning(
                "Traces of %s examples hold values that JSON cannot: the run goes on without what an earlier "
                "process saw of them.",
                self._role,
            )

    def _at(self, place: Place) -> tuple[str | int, ...]:
        prompt, example = place
        return (self._role, digest([prompt, self._program]), example)
