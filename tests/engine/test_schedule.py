from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspy_diffusion_infill.engine.schedule import block_counts, commit_counts
from dspy_diffusion_infill.errors import SettingsError

sizes = st.integers(1, 300)


@given(sizes, sizes)
def test_the_counts_sum_to_the_masks_and_differ_by_at_most_one(num_masked, num_steps):
    counts = commit_counts(num_masked, num_steps)
    assert sum(counts) == num_masked
    assert max(counts) - min(counts) <= 1
    assert min(counts) >= 1
    assert len(counts) == min(num_masked, num_steps)


@given(sizes, st.none() | sizes, sizes)
def test_blocks_cover_the_masks_in_order_and_all_but_the_last_are_full(num_masked, num_steps, block_length):
    blocks = block_counts(num_masked, num_steps, block_length)
    held = [sum(counts) for counts in blocks]
    assert sum(held) == num_masked
    assert all(size == block_length for size in held[:-1])
    assert all(count >= 1 for counts in blocks for count in counts)
    assert sum(map(len, blocks)) <= max(num_steps or num_masked, len(blocks))


def test_every_block_gets_a_step_even_if_fewer_were_asked_for():
    assert block_counts(10, 2, 4) == [[4], [4], [2]]


def test_early_steps_take_the_remainder_as_in_llada():
    assert commit_counts(11, 4) == [3, 3, 3, 2]


def test_no_number_of_steps_means_one_token_a_step():
    assert commit_counts(3) == [1, 1, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 1), "num_masked must be at least 1; got 0"),
        ((3, 0), "num_steps must be at least 1; got 0"),
        ((3, 2, 0), "block_length must be at least 1; got 0"),
    ],
)
def test_numbers_below_one_are_refused(arguments, message):
    with pytest.raises(SettingsError, match=message):
        block_counts(*arguments)
