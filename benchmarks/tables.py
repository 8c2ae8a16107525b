"""Rows of agreement with people, as a table and as plain data, and the paper's rows to print beside them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from dspy_diffusion_infill.judges.agreement import MEASURES, Estimate, Judged, agreement, improvement

LABELS = ("judge", "template", "method", "seed", "target")

PAPER = {
    "Table 4, Prometheus 8x7B v2.0": {
        "baseline": (0.428, 0.410, 0.372),
        "COPRO": (0.465, 0.447, 0.355),
        "COPRO + infill (LLaDA 8B)": (0.539, 0.490, 0.394),
        "GEPA": (0.377, 0.356, 0.330),
        "GEPA + infill": (0.401, 0.391, 0.315),
    },
    "Table 4, Prometheus 13B v1.0": {
        "baseline": (0.271, 0.248, 0.216),
        "COPRO (Llama 8B)": (0.312, 0.306, 0.235),
        "COPRO + infill": (0.314, 0.318, 0.243),
        "GEPA (Llama 8B)": (0.131, 0.117, 0.104),
        "GEPA (Qwen 14B)": (0.132, 0.126, 0.114),
    },
    "Table 2, LLaDA FS+RO as judge": {
        "G-Eval": (0.386, 0.480, 0.380),
        "C-gen": (0.432, 0.449, 0.359),
        "C-gen infill": (0.209, 0.159, 0.128),
        "Judge": (0.500, 0.507, 0.404),
        "Judge infill": (0.546, 0.535, 0.423),
    },
}
"""Pearson, Spearman and Kendall on SummEval as arXiv:2604.03677 prints them."""


def plain_row(names: Sequence[str], judged: Sequence[Judged], resamples: int) -> dict[str, Any]:
    """How well judged records agree with people, as plain data; None where a number is not defined."""
    found = agreement(judged, resamples=resamples)
    return {
        **dict(zip(LABELS, names, strict=True)),
        "n": found.num_records,
        "documents": found.num_documents,
        "unscored": found.num_unscored,
        "distinct": found.num_distinct,
        "dataset": {measure: _plain(found.dataset[measure]) for measure in MEASURES},
        "document": {measure: _plain(found.document[measure]) for measure in MEASURES},
    }


def row_lines(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A table: over all records with intervals, then within documents."""
    yield ""
    head = f"{'judged by':<44} {'target':<12}{'n':>5} {'unscored':>9} {'distinct':>9}"
    yield head + "".join(f"  {measure:<21}" for measure in MEASURES) + "  within documents"
    for row in rows:
        name = " ".join(filter(None, (row[label] for label in LABELS[:4])))
        counts = f"{row['n']:>5} {row['unscored'] / row['n']:>9.1%} {row['distinct']:>9}"
        over_all = "".join(f"  {_shown(row['dataset'][measure]):<21}" for measure in MEASURES)
        within = " ".join(_number(row["document"][measure]["value"]) for measure in MEASURES)
        yield f"{name:<44} {row['target']:<12}{counts}{over_all}  {within}"


def improvements(found: Mapping[tuple[str, ...], Sequence[Judged]], resamples: int) -> list[dict[str, Any]]:
    """A row for each method against the baseline of its judge, template and seed, on the same records."""
    rows = []
    for (judge, template, method, seed, target), after in found.items():
        before = found.get((judge, template, "baseline", seed, target))
        if before is None or method == "baseline" or all(one.score is None for one in after):
            continue
        names = judge, template, f"{method} over baseline", seed, target
        gains = improvement(before, after, resamples=resamples)
        row = dict(zip(LABELS, names, strict=True))
        rows.append({**row, "gain": {measure: _plain(gains[measure]) for measure in MEASURES}})
    return rows


def improvement_line(row: Mapping[str, Any]) -> str:
    """One such row as a line."""
    shown = "  ".join(f"{measure} {_shown(row['gain'][measure], sign='+')}" for measure in MEASURES)
    return f"{row['method']}, seed {row['seed']}: {shown}"


def paper_lines() -> Iterator[str]:
    """The paper's rows: other models, other records, a target it does not define; for orientation."""
    for table, rows in PAPER.items():
        yield f"\nThe paper's own numbers, {table}:"
        for name, values in rows.items():
            yield f"  {name:<42}" + "  ".join(
                f"{measure} {value:.3f}" for measure, value in zip(MEASURES, values, strict=True)
            )


def _plain(estimate: Estimate) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in asdict(estimate).items()}


def _shown(estimate: Mapping[str, float | None], sign: str = "") -> str:
    value, low, high = (_number(estimate[name], sign) for name in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _number(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.3f}"
