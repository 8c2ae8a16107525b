"""The forward process, against its distributions."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from dspy_diffusion_infill.training.masking import exact_count, full_sequence, response_only, rest

NUM_DRAWS = 4000


def draws(mask, positions: torch.Tensor) -> torch.Tensor:
    """[draws, length]"""
    generator = torch.Generator().manual_seed(0)
    return torch.stack([mask(positions, generator) for _ in range(NUM_DRAWS)])


@given(st.lists(st.booleans(), min_size=1, max_size=30).filter(any), st.integers(0, 2**32))
def test_only_what_may_be_masked_is_masked_and_never_nothing(maskable: list[bool], seed: int):
    for mask in (full_sequence, response_only, exact_count):
        positions = torch.tensor(maskable)
        masked = mask(positions, torch.Generator().manual_seed(seed))
        assert masked.any()
        assert not (masked & ~positions).any()


def test_equal_seeds_mask_equal_tokens_and_others_do_not():
    positions = torch.ones(40, dtype=torch.bool)
    one, same, other = (full_sequence(positions, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_full_sequence_masks_the_floor_of_t_times_n():
    """With n = 4, t uniform gives floor(4t) = 0, 1, 2, 3 a quarter of the time each; a draw of 0 masks one.

    A count is binomial with standard deviation at most 32 of 4000; bounds are six of them away, which chance
    passes less than once in 10^8 runs (and the seed is fixed).
    """
    counts = draws(full_sequence, torch.tensor([True] * 4 + [False] * 3)).sum(1)
    found = [int((counts == k).sum()) for k in range(5)]
    assert found[0] == 0
    assert found[4] == 0
    assert abs(found[1] - 2000) < 190
    assert abs(found[2] - 1000) < 165
    assert abs(found[3] - 1000) < 165


def test_full_sequence_masks_every_position_equally_often():
    share = draws(full_sequence, torch.ones(10, dtype=torch.bool)).float().mean(0)
    # (1 + 1 + 2 + ... + 9) / 10 of 10 positions; six standard errors are 0.047
    assert (share - 0.46).abs().max() < 0.047


def test_response_only_masks_each_token_with_one_probability_per_draw():
    """Bernoulli(t), t uniform: a count of n is uniform on 0..n, so all-masked is as likely as any other."""
    counts = draws(response_only, torch.ones(3, dtype=torch.bool)).sum(1)
    found = [int((counts == k).sum()) for k in range(4)]
    assert found[0] == 0
    assert abs(found[1] - 2000) < 190, "a draw of zero masks masks one"
    assert abs(found[2] - 1000) < 165
    assert abs(found[3] - 1000) < 165


def test_an_exact_count_is_as_likely_one_as_another_up_to_all():
    counts = draws(exact_count, torch.tensor([True, False, True, True, True])).sum(1)
    found = [int((counts == k).sum()) for k in range(5)]
    assert found[0] == 0
    assert all(abs(count - 1000) < 165 for count in found[1:])
    levels = [int(exact_count(torch.ones(4, dtype=torch.bool), torch.Generator(), t).sum())
              for t in (0.0, 0.24, 0.25, 0.99)]  # fmt: skip
    assert levels == [1, 1, 2, 4]


def test_response_only_leaves_the_prompt_clean():
    response = torch.tensor([False, False, True, True])
    assert not draws(response_only, response)[:, :2].any()


def test_rest_masks_from_any_token_of_the_response_on():
    response = torch.tensor([False, True, True, False, True])
    drawn = draws(rest, response)
    found = {
        tuple(row): int((drawn == torch.tensor(row)).all(1).sum()) for row in drawn.unique(dim=0).tolist()
    }
    assert sorted(tuple(int(flag) for flag in row) for row in found) == [
        (0, 0, 0, 0, 1),
        (0, 0, 1, 0, 1),
        (0, 1, 1, 0, 1),
    ]
    assert all(abs(count - NUM_DRAWS / 3) < 180 for count in found.values())


def test_where_no_token_was_drawn_any_one_is_as_likely_masked():
    response = torch.tensor([False, True, True, True])
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([response_only(response, generator, 1e-12) for _ in range(3000)])
    assert (drawn.sum(1) == 1).all()
    assert ((drawn.sum(0)[1:] - 1000).abs() < 160).all()  # six standard deviations


def test_responses_are_masked_at_the_level_that_is_given():
    response = torch.ones(2000, dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)
    for level in (0.1, 0.9):
        assert abs(float(response_only(response, generator, level).float().mean()) - level) < 0.041
