"""How well a judge agrees with people: correlations at two levels, with intervals over documents."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from dspy_diffusion_infill.errors import MissingExtraError, SettingsError

try:
    import numpy as np
    from scipy import stats
except ImportError as error:
    raise MissingExtraError("Agreement with people", "bench") from error

Measure = Literal["pearson", "spearman", "kendall"]
MEASURES: tuple[Measure, ...] = ("pearson", "spearman", "kendall")

Clusters = Sequence[np.ndarray]
"""One array a document: records x columns, people's score in the first column."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One record, scored by people and by a judge."""

    document: str
    """Records of one document are no independent evidence."""
    target: float
    score: float | None
    """None if it is unscored, as one is that is not finite."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % interval; nan where it is not defined."""

    value: float
    low: float = math.nan
    high: float = math.nan

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, slots=True)
class Agreement:
    """Correlations of a judge with people."""

    dataset: Mapping[Measure, Estimate]
    """Over all records at once."""
    document: Mapping[Measure, Estimate]
    """Within each document, averaged over those where it is defined."""
    num_records: int
    num_documents: int
    num_unscored: int
    num_distinct: int
    """Different scores that the judge gave: rounding alone raises Kendall."""


def correlate(measure: Measure, xs: Sequence[float] | np.ndarray, ys: Sequence[float] | np.ndarray) -> float:
    """A correlation as scipy defines it, Kendall as tau-b.

    It is nan for fewer than two pairs, for a constant side, and where a number is not finite.

    Example:
        >>> correlate("spearman", [1, 2, 3], [1, 4, 9]), correlate("pearson", [1, 1], [1, 2])
        (1.0, nan)
    """
    if not (np.isfinite(xs).all() and np.isfinite(ys).all()):
        return math.nan
    if len(xs) < 2 or np.ptp(xs) == 0 or np.ptp(ys) == 0:
        return math.nan
    if measure == "kendall":
        return float(cast(Any, stats.kendalltau(xs, ys)).statistic)
    # scipy's numbers, without its tests of significance: bootstraps ask thousands of times
    sides = (xs, ys) if measure == "pearson" else (_ranks(xs), _ranks(ys))
    return float(np.corrcoef(*sides)[0, 1])


def _ranks(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """From 1; equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def agreement(judged: Sequence[Judged], *, resamples: int = 1000, seed: int = 0) -> Agreement:
    """Compare a judge with people.

    Unscored records are left out and counted. Intervals are percentiles over bootstrap samples of whole
    documents (their records go together); samples in which a correlation is not defined are left out.

    Source: dataset level as in DAMO-NLP-SG/LLM_summeval, document level as in G-Eval's code, which skips
    documents with constant scores as well, but takes an unread reply for a 0.

    Args:
        judged: In any order.
        resamples: Bootstrap samples; 0 for no intervals.
        seed: Of the samples.

    Raises:
        SettingsError: If people's score is missing somewhere.

    Example:
        >>> found = agreement([Judged("a", 1, 2), Judged("a", 2, 3), Judged("b", 3, None)], resamples=0)
        >>> found.dataset["kendall"].value, found.num_unscored
        (1.0, 1)
    """
    columns = [(record.document, record.target, record.score) for record in judged]
    clusters = _clusters(columns)
    scored = [record.score for record in judged if _is_score(record.score)]
    within = [np.array([_correlations(cluster)]) for cluster in clusters]
    return Agreement(
        dataset=_estimates(clusters, _correlations, resamples, seed),
        document=_estimates(within, _mean, resamples, seed),
        num_records=len(judged),
        num_documents=len({record.document for record in judged}),
        num_unscored=len(judged) - len(scored),
        num_distinct=len(set(scored)),
    )


def improvement(
    before: Sequence[Judged], after: Sequence[Judged], *, resamples: int = 1000, seed: int = 0
) -> dict[Measure, Estimate]:
    """By how much a second judge agrees better with people than a first, at the dataset level.

    Paired: both are compared on the records that both scored, and every bootstrap sample draws the same
    documents for both.

    Args:
        before: The first judge's records.
        after: The second judge's, in the same order.
        resamples: Bootstrap samples.
        seed: Of the samples.

    Raises:
        SettingsError: If the two are not of the same records.
    """
    pairs = list(zip(before, after, strict=False))
    if len(before) != len(after) or any((a.document, a.target) != (b.document, b.target) for a, b in pairs):
        raise SettingsError("before and after must be of the same records, in the same order.")
    clusters = _clusters([(a.document, a.target, a.score, b.score) for a, b in pairs])

    def gain(table: np.ndarray) -> list[float]:
        first, second = _correlations(table[:, [0, 1]]), _correlations(table[:, [0, 2]])
        return [b - a for a, b in zip(first, second, strict=True)]

    return _estimates(clusters, gain, resamples, seed)


def _clusters(columns: Sequence[tuple[Any, ...]]) -> list[np.ndarray]:
    """Numbers by document, in order of appearance; rows with an unscored record left out."""
    rows: dict[str, list[tuple[float, ...]]] = {}
    for document, target, *scores in columns:
        if target is None or not math.isfinite(target):
            raise SettingsError(
                f"Every record must have people's score; got {target} in document {document}."
            )
        if all(map(_is_score, scores)):
            rows.setdefault(document, []).append((target, *scores))
    return [np.array(cluster, dtype=float) for cluster in rows.values()]


def _is_score(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _correlations(table: np.ndarray) -> list[float]:
    return [correlate(measure, table[:, 0], table[:, 1]) for measure in MEASURES]


def _mean(table: np.ndarray) -> list[float]:
    """Column means over what is defined."""
    defined = [column[~np.isnan(column)] for column in table.T]
    return [float(column.mean()) if column.size else math.nan for column in defined]


def _estimates(
    clusters: Clusters, statistic: Callable[[np.ndarray], list[float]], resamples: int, seed: int
) -> dict[Measure, Estimate]:
    if not clusters:
        return dict.fromkeys(MEASURES, Estimate(math.nan))
    values = statistic(np.concatenate(clusters))
    random = np.random.default_rng(seed)
    draws = [
        statistic(np.concatenate([clusters[n] for n in random.integers(len(clusters), size=len(clusters))]))
        for _ in range(resamples)
    ]
    return {
        measure: _estimate(values[n], [draw[n] for draw in draws if not math.isnan(draw[n])])
        for n, measure in enumerate(MEASURES)
    }


def _estimate(value: float, draws: Sequence[float]) -> Estimate:
    low, high = np.percentile(draws, [2.5, 97.5]) if draws else (math.nan, math.nan)
    return Estimate(value, float(low), float(high))
