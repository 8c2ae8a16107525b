"""Agreement: scipy's correlations on ties, constants and gaps; intervals over documents, not records."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.judges.agreement import (
    MEASURES,
    Judged,
    _estimate,
    agreement,
    correlate,
    improvement,
)

GRADES = st.integers(1, 5).map(float)
SCIPY = {"pearson": stats.pearsonr, "spearman": stats.spearmanr, "kendall": stats.kendalltau}


def one_document(targets, scores) -> list[Judged]:
    return [Judged("a", target, score) for target, score in zip(targets, scores, strict=True)]


@given(st.lists(st.tuples(GRADES, GRADES | st.none()), min_size=2, max_size=30))
def test_correlations_are_scipy_s_with_ties_constants_and_gaps(pairs):
    found = agreement(one_document(*zip(*pairs, strict=True)), resamples=0)
    kept = [pair for pair in pairs if pair[1] is not None]
    assert found.num_unscored == len(pairs) - len(kept)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for measure in MEASURES:
            expected = SCIPY[measure](*zip(*kept, strict=True)).statistic if len(kept) > 1 else math.nan
            for level in (found.dataset, found.document):
                assert level[measure].value == pytest.approx(expected, nan_ok=True)


@given(st.lists(st.tuples(GRADES, GRADES | st.just(math.nan)), min_size=3, max_size=30))
def test_an_unscored_record_is_scipy_s_omitted_nan(pairs):
    targets, scores = zip(*pairs, strict=True)
    kept = [pair for pair in pairs if not math.isnan(pair[1])]
    assume(len(kept) > 2 and all(len(set(side)) > 1 for side in zip(*kept, strict=True)))
    ours = agreement(
        one_document(targets, [None if math.isnan(score) else score for score in scores]), resamples=0
    )
    for measure in ("spearman", "kendall"):
        theirs = SCIPY[measure](targets, scores, nan_policy="omit").statistic
        assert ours.dataset[measure].value == pytest.approx(float(theirs))


@pytest.mark.parametrize("none", [None, math.nan, math.inf])
def test_what_is_no_number_is_unscored_and_no_best_score(none):
    found = agreement(one_document([1, 2, 3, 4], [1, 2, 3, none]), resamples=0)
    assert (found.num_unscored, found.num_distinct) == (1, 3)
    assert found.dataset["spearman"].value == found.document["kendall"].value == 1
    gain = improvement(one_document([1, 2, 3], [1, 2, none]), one_document([1, 2, 3], [2, 1, 3]), resamples=0)
    assert gain["pearson"].value == pytest.approx(-2)
    for measure in MEASURES:
        assert none is None or math.isnan(correlate(measure, [1, 2, 3, 4], [1, 2, 3, none]))


def test_values_worked_out_by_hand():
    # ranks of 1 2 2 4: 1 2.5 2.5 4; of 1 3 2 4: 1 3 2 4; covariance 4.5, variances 4.5 and 5
    assert correlate("spearman", [1, 2, 2, 4], [1, 3, 2, 4]) == pytest.approx(4.5 / math.sqrt(4.5 * 5))
    # 5 pairs agree, none disagree, one is tied on one side: 5 / sqrt(5 * 6)
    assert correlate("kendall", [1, 2, 2, 4], [1, 3, 2, 4]) == pytest.approx(5 / math.sqrt(30))
    assert correlate("pearson", [0, 1, 2], [0, 2, 1]) == pytest.approx(0.5)


def test_a_constant_or_a_single_pair_has_no_correlation():
    for measure in MEASURES:
        assert math.isnan(correlate(measure, [1, 1, 1], [1, 2, 3]))
        assert math.isnan(correlate(measure, [1, 2, 3], [2, 2, 2]))
        assert math.isnan(correlate(measure, [1], [2]))


def test_within_documents_and_over_all_are_two_things():
    # within each document the judge is right; documents are on different levels for it
    judged = [Judged(d, t, t + shift) for d, shift in (("a", 0), ("b", -9), ("c", 9)) for t in (1, 2, 3)]
    found = agreement(judged, resamples=0)
    assert [found.document[measure].value for measure in MEASURES] == pytest.approx([1, 1, 1])
    assert found.dataset["pearson"].value < 0.2


def test_documents_without_a_correlation_are_skipped_not_zero():
    judged = [*one_document([1, 2, 3], [1, 2, 3]), *(Judged("b", 2, score) for score in (1, 5))]
    assert agreement(judged, resamples=0).document["spearman"].value == 1


def test_counts_tell_records_documents_and_distinct_scores():
    judged = [Judged("a", 1, 1.0), Judged("a", 2, 1.5), Judged("b", 3, None), Judged("c", 4, 1.0)]
    found = agreement(judged, resamples=0)
    assert (found.num_records, found.num_documents, found.num_unscored, found.num_distinct) == (4, 3, 1, 2)


def test_nothing_scored_is_not_a_number():
    found = agreement([Judged("a", 1, None)], resamples=9)
    assert math.isnan(found.dataset["pearson"].value)
    assert found.num_distinct == 0


def test_a_missing_human_score_is_refused():
    with pytest.raises(SettingsError, match="must have people's score; got nan in document a"):
        agreement(one_document([math.nan, 1], [1, 2]))


def noisy(num_documents: int, per_document: int, seed: int) -> list[Judged]:
    """A judge whose error is the same all over a document."""
    random = np.random.default_rng(seed)
    return [
        Judged(str(d), float(t), float(t + error))
        for d, error in enumerate(random.normal(0, 2, num_documents))
        for t in random.integers(1, 6, per_document)
    ]


def test_intervals_are_over_documents():
    clustered = noisy(20, 16, seed=3)
    alone = [Judged(str(n), record.target, record.score) for n, record in enumerate(clustered)]

    def width(judged):
        found = agreement(judged, resamples=100).dataset["pearson"]
        assert found.low < found.value < found.high
        return found.high - found.low

    assert width(clustered) > 2 * width(alone)


def test_equal_seeds_give_equal_intervals():
    judged = noisy(8, 4, seed=1)
    first, again, other = (agreement(judged, resamples=50, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first.dataset["pearson"].low != other.dataset["pearson"].low


def test_an_improvement_is_paired():
    before = noisy(12, 8, seed=5)
    after = [Judged(record.document, record.target, record.target) for record in before]
    gains = improvement(before, after, resamples=50)
    first = agreement(before, resamples=0).dataset
    for measure in MEASURES:
        assert gains[measure].value == pytest.approx(1 - first[measure].value)
        assert gains[measure].low > 0
    same = improvement(before, before, resamples=50)["pearson"]
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_an_improvement_is_measured_where_both_scored():
    before = one_document([1, 2, 3, 4], [1, 2, 3, None])
    after = one_document([1, 2, 3, 4], [1, 2, 3, 0])
    assert improvement(before, after, resamples=0)["pearson"].value == 0


def test_an_improvement_is_of_the_same_records():
    with pytest.raises(SettingsError, match="same records, in the same order"):
        improvement(one_document([1, 2], [1, 2]), one_document([2, 1], [1, 2]))
    with pytest.raises(SettingsError, match="same records, in the same order"):
        improvement(one_document([1, 2], [1, 2]), one_document([1], [1]))


def test_an_interval_leaves_two_and_a_half_percent_out_on_each_side():
    spread = _estimate(0.5, [n / 1000 for n in range(1001)])
    assert (spread.low, spread.high) == pytest.approx((0.025, 0.975))
    assert math.isnan(_estimate(0.5, []).low)
