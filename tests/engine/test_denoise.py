from __future__ import annotations

import math
from itertools import pairwise
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dspy_diffusion_infill.engine.denoise import infill
from dspy_diffusion_infill.engine.model import ToyModel
from dspy_diffusion_infill.engine.reverse import Decoding
from dspy_diffusion_infill.engine.rows import MAX_BATCH_TOKENS, token_batches
from dspy_diffusion_infill.engine.schedule import commit_counts
from dspy_diffusion_infill.errors import CanvasError, SettingsError
from dspy_diffusion_infill.prompts.canvas import Denoising, Remasking

MASK = 8
GREEDY = Denoising(temperature=0.0)


class Watched(ToyModel):
    """A toy that remembers the ids it was shown, and how many places were asked for."""

    def __init__(self, answer):
        super().__init__(torch.tensor(answer), vocab_size=9, mask_token_id=MASK)
        self.shown = []
        self.asked = []

    def logits(self, ids, attention_mask, wanted):
        self.shown.append(ids.tolist())
        self.asked.append(int(wanted.sum()))
        return super().logits(ids, attention_mask, wanted)


class Restless(ToyModel):
    """Logits that depend on everything in the row, and favour the mask token above all."""

    def __init__(self):
        super().__init__(torch.zeros(32, dtype=torch.long), vocab_size=9, mask_token_id=MASK)

    def logits(self, ids, attention_mask, wanted):
        content = (ids * attention_mask * torch.arange(1, ids.shape[1] + 1)).sum(1)
        rows, positions = wanted.nonzero().T
        angle = content[rows, None] * 0.7 + positions[:, None] * 1.3 + torch.arange(9) ** 2
        return 3 * angle.sin() + 50 * (torch.arange(9) == MASK)


def commit_order(shown):
    """Positions in the order in which they stopped being masks (the last commit is not shown)."""
    return [
        {at for at, (old, new) in enumerate(zip(before[0], after[0], strict=True)) if old != new}
        for before, after in pairwise(shown)
    ]


canvases = st.lists(
    st.lists(st.integers(0, MASK), min_size=1, max_size=12).filter(lambda ids: MASK in ids),
    min_size=1,
    max_size=5,
)
decodings = st.builds(
    Decoding,
    denoising=st.builds(
        Denoising,
        steps=st.none() | st.integers(1, 20),
        temperature=st.sampled_from([0.0, 0.3, 2.0]),
        remasking=st.sampled_from(get_args(Remasking)),
        threshold=st.none() | st.floats(0.1, 1.0),
        top_p=st.none() | st.floats(0.01, 1.0),
        top_k=st.none() | st.integers(1, 12),
        guidance=st.sampled_from([0.0, 1.5]),
    ),
    block_length=st.none() | st.integers(1, 5),
    stop_ids=st.sampled_from([frozenset(), frozenset({3})]),
)


@settings(deadline=None)
@given(canvases, decodings, st.integers(1, 3), st.integers(0, 9))
def test_given_tokens_stay_and_masks_go(canvases, decoding, num_candidates, seed):
    filled = infill(Restless(), canvases, num_candidates=num_candidates, decoding=decoding, seed=seed)
    assert [len(group) for group in filled] == [num_candidates] * len(canvases)
    for canvas, group in zip(canvases, filled, strict=True):
        for one in group:
            assert len(one.ids) == len(canvas)
            assert MASK not in one.ids
            assert all(new == old for old, new in zip(canvas, one.ids, strict=True) if old != MASK)
            assert 1 <= one.num_passes <= canvas.count(MASK)
            assert one.log_likelihood <= 1e-6


@settings(deadline=None)
@given(canvases, decodings, st.integers(0, 9))
def test_a_canvas_is_filled_alike_in_any_batch(canvases, decoding, seed):
    together = infill(Restless(), canvases, num_candidates=2, decoding=decoding, seed=seed)
    for canvas, group in zip(canvases, together, strict=True):
        (alone,) = infill(Restless(), [canvas], num_candidates=2, decoding=decoding, seed=seed)
        assert [one.ids for one in alone] == [one.ids for one in group]
        assert [one.num_passes for one in alone] == [one.num_passes for one in group]


def test_committed_tokens_never_change():
    model = Restless()
    seen = []
    logits = model.logits
    model.logits = lambda ids, *rest: (seen.append(ids[0].tolist()), logits(ids, *rest))[1]
    final = infill(model, [[MASK] * 7], decoding=Decoding(denoising=Denoising(temperature=1.0)))[0][0].ids
    for before, after in pairwise([*seen, final]):
        assert all(new == old for old, new in zip(before, after, strict=True) if old != MASK)


def test_the_surest_positions_are_committed_first():
    # Heights 2 + (7i + 3) mod 11 / 5: 2.6, 4.0, 3.2, 2.4, 3.8 at positions 0 to 4.
    model = Watched([1, 2, 3, 4, 5])
    filled = infill(model, [[MASK] * 5], decoding=Decoding(denoising=GREEDY))
    assert filled[0][0].ids == [1, 2, 3, 4, 5]
    assert commit_order(model.shown) == [{1}, {4}, {2}, {0}]
    assert model.asked == [5, 4, 3, 2, 1]


def test_steps_are_clamped_to_the_masks_and_shared_out_evenly():
    model = Watched([1, 2, 3, 4, 5])
    infill(model, [[MASK] * 5], decoding=Decoding(denoising=Denoising(temperature=0.0, steps=2)))
    assert commit_order(model.shown) == [{1, 2, 4}]
    (one,) = infill(model, [[1, MASK, 3]], decoding=Decoding(denoising=Denoising(temperature=0.0, steps=99)))[
        0
    ]
    assert one.num_passes == 1


def test_blocks_are_finished_from_left_to_right():
    model = Watched([1, 2, 3, 4, 5])
    infill(model, [[MASK] * 5], decoding=Decoding(denoising=GREEDY, block_length=2))
    assert commit_order(model.shown) == [{1}, {0}, {2}, {3}]


def test_the_log_likelihood_is_that_of_the_commits_among_allowed_tokens():
    model = Watched([1, 2, 3])
    (one,) = infill(model, [[1, MASK, MASK]], decoding=Decoding(denoising=GREEDY))[0]
    expected = sum(height - math.log(math.exp(height) + 7) for height in (4.0, 3.2))
    assert one.log_likelihood == pytest.approx(expected, abs=1e-5)


def test_tokens_above_the_threshold_are_committed_together():
    # Among 8 allowed tokens, heights 4.0, 3.8 and 3.2 have probabilities .89, .86 and .78.
    model = Watched([1, 2, 3, 4, 5])
    infill(model, [[MASK] * 5], decoding=Decoding(denoising=Denoising(temperature=0.0, threshold=0.85)))
    assert commit_order(model.shown) == [{1, 4}, {2}, {0}]


def test_nothing_after_a_stop_token_is_computed():
    model = Watched([1, 2, 7, 4, 5])
    (one,) = infill(model, [[MASK] * 5], decoding=Decoding(denoising=GREEDY, stop_ids=frozenset({7})))[0]
    # Order 1, 4, 2 (the stop), 0: position 3 is never reached, and reads as the stop token.
    assert one.ids == [1, 2, 7, 7, 5]
    assert one.num_passes == 4


def test_a_stop_token_that_was_given_stops_nothing():
    model = Watched([7, 2, 3])
    (one,) = infill(model, [[7, MASK, MASK]], decoding=Decoding(denoising=GREEDY, stop_ids=frozenset({7})))[0]
    assert one.ids == [7, 2, 3]


def test_temperature_divides_the_logits():
    # Three ids, the last the mask. Height 2.6 against 0: at temperature 2 the answer has probability
    # 1 / (1 + exp(-1.3)) = .786; over 4000 draws the standard error is .0065, so .03 is 4.6 of them.
    model = ToyModel(torch.tensor([1]), vocab_size=3, mask_token_id=2)
    decoding = Decoding(denoising=Denoising(temperature=2.0))
    (drawn,) = infill(model, [[2]], num_candidates=4000, decoding=decoding, seed=1)
    assert sum(one.ids == [1] for one in drawn) / 4000 == pytest.approx(0.786, abs=0.03)


@pytest.mark.parametrize("least", [{"temperature": 1e-40}, {"top_p": 1e-46}])  # no float32 is as small
def test_the_smallest_settings_leave_the_likeliest_token(least):
    model = Planted([[1.0, 2.0, 3.0, 2.0] + [-1e9] * 5])  # divided by 1e-40, four are infinite
    decoding = Decoding(denoising=Denoising(**{"temperature": 1.0, **least}))
    (drawn,) = infill(model, [[MASK]], num_candidates=50, decoding=decoding, seed=1)
    assert {one.ids[0] for one in drawn} == {2}


@pytest.mark.parametrize(
    ("cut", "allowed"), [({"top_p": 0.8}, {0, 1, 2}), ({"top_k": 2}, {0, 1}), ({}, {0, 1, 2, 3})]
)
def test_only_the_likeliest_tokens_are_drawn(cut, allowed):
    # At temperature 2 the probabilities .4, .3, .2, .1 have their square roots, over 1.944: .325, .282, .230,
    # .163. The first two reach .607, the first three .837.
    model = Planted([[math.log(p) for p in (0.4, 0.3, 0.2, 0.1)] + [-1e9] * 5])
    decoding = Decoding(denoising=Denoising(temperature=2.0, **cut))
    (drawn,) = infill(model, [[MASK]], num_candidates=200, decoding=decoding)
    assert {one.ids[0] for one in drawn} == allowed


def test_guidance_moves_logits_away_from_those_without_the_given_text():
    class Echo(ToyModel):
        """Token 3 where token 5 is given, else token 4, a little likelier."""

        def logits(self, ids, attention_mask, wanted):
            given = (ids == 5).any(1)[wanted.nonzero()[:, 0]].float()
            scores = torch.zeros(len(given), 9)
            scores[:, 3], scores[:, 4] = given, 1.2
            return scores

    model = Echo(torch.zeros(4, dtype=torch.long), vocab_size=9, mask_token_id=MASK)
    canvas = [5, MASK, 1, MASK]

    def fill(guidance):
        how = Denoising(temperature=0.0, guidance=guidance)
        return infill(model, [canvas], decoding=Decoding(denoising=how))[0][0]

    # u + (1 + s) (c - u): token 3 has 0 + (1 + s), token 4 stays at 1.2, and six others at 0.
    assert fill(0.1).ids == [5, 4, 1, 4]
    assert fill(0.3).ids == [5, 3, 1, 3]
    each = 1.3 - math.log(math.exp(1.3) + math.exp(1.2) + 6)
    assert fill(0.3).log_likelihood == pytest.approx(2 * each, abs=1e-5)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1, or None; got 0.0"),
        ({"top_k": 0}, "top_k must be at least 1, or None; got 0"),
        ({"guidance": -1.0}, "guidance must be between 0 and 10; got -1.0"),
        ({"cache": "some"}, "cache must be one of 'auto', 'exact', 'window', 'context'; got 'some'"),
    ],
)
def test_a_setting_out_of_range_is_refused(setting, message):
    with pytest.raises(SettingsError, match=message):
        Denoising(**setting)


class Planted(ToyModel):
    """The same logits in any context: one row of them for each position."""

    def __init__(self, logits):
        super().__init__(torch.zeros(len(logits), dtype=torch.long), vocab_size=9, mask_token_id=MASK)
        self.table = torch.tensor(logits)
        self.shown = []

    def logits(self, ids, attention_mask, wanted):
        self.shown.append(ids.tolist())
        return self.table[wanted.nonzero()[:, 1]].clone()


def test_each_remasking_has_its_own_idea_of_being_sure():
    # Allowed tokens are 0 to 7. Probabilities: first .45 .45 and six of .0167; second .40 and seven of .0857;
    # third .42 .30 .28. Likeliest token: 1st, 3rd, 2nd. Margin: 2nd (.31), 3rd (.12), 1st (0).
    # Entropy: 3rd (1.08 nats), 1st (1.13), 2nd (1.84).
    def row(*given):
        rest = (1 - sum(given)) / (8 - len(given))
        return [math.log(max(p, 1e-30)) for p in (*given, *[rest] * (8 - len(given)))] + [0.0]

    expected = {
        "low_confidence": [{0}, {2}],
        "top_k_margin": [{1}, {2}],
        "entropy": [{2}, {0}],
    }
    for remasking, order in expected.items():
        model = Planted([row(0.45, 0.45), row(0.40), row(0.42, 0.30, 0.28)])
        infill(
            model, [[MASK] * 3], decoding=Decoding(denoising=Denoising(temperature=0.0, remasking=remasking))
        )
        assert commit_order(model.shown) == order, remasking


def test_random_remasking_commits_in_an_order_of_its_own():
    decoding = Decoding(denoising=Denoising(temperature=0.0, remasking="random"))
    orders = set()
    for seed in range(20):
        model = Watched([1, 2, 3, 4, 5])
        infill(model, [[MASK] * 5], decoding=decoding, seed=seed)
        orders.add(str(commit_order(model.shown)))
    assert len(orders) > 10


def test_candidates_differ_with_temperature_and_are_computed_once_without():
    model = Watched([1] * 6)
    (hot,) = infill(
        model, [[MASK] * 6], num_candidates=5, decoding=Decoding(denoising=Denoising(temperature=3.0))
    )
    assert len({tuple(one.ids) for one in hot}) > 1
    assert len(model.shown[-1]) == 5
    (cold,) = infill(model, [[MASK] * 6], num_candidates=5, decoding=Decoding(denoising=GREEDY))
    assert len(cold) == 5
    assert len(model.shown[-1]) == 1


def test_seeds_change_the_noise_and_equal_seeds_do_not():
    decoding = Decoding(denoising=Denoising(temperature=3.0))

    def run(seed):
        return [
            one.ids
            for one in infill(Restless(), [[MASK] * 8], num_candidates=3, decoding=decoding, seed=seed)[0]
        ]

    assert run(0) == run(0)
    assert run(0) != run(1)


def test_two_canvases_get_noise_of_their_own():
    model = ToyModel(torch.zeros(9, dtype=torch.long), vocab_size=9, mask_token_id=MASK)
    decoding = Decoding(denoising=Denoising(temperature=9.0))
    (one,), (other,) = infill(model, [[1, *[MASK] * 8], [2, *[MASK] * 8]], decoding=decoding)
    assert one.ids[1:] != other.ids[1:]


def test_padding_is_no_mask_even_where_they_share_an_id():
    model = ToyModel(torch.tensor([1, 2, 3, 4]), vocab_size=9, mask_token_id=0)
    filled = infill(model, [[5, 0, 5, 5], [5, 0]], decoding=Decoding(denoising=GREEDY))
    assert [one.ids for (one,) in filled] == [[5, 2, 5, 5], [5, 2]]
    assert [one.num_passes for (one,) in filled] == [1, 1]


def test_batches_hold_a_bounded_number_of_tokens(monkeypatch):
    monkeypatch.setitem(MAX_BATCH_TOKENS, "cpu", 12)
    model = Watched([1, 2, 3, 4, 5])
    canvases = [[MASK] * 5, [MASK] * 2, [MASK] * 4, [MASK] * 3]
    filled = infill(model, canvases, decoding=Decoding(denoising=GREEDY))
    assert [one.ids for (one,) in filled] == [[1, 2, 3, 4, 5], [1, 2], [1, 2, 3, 4], [1, 2, 3]]
    assert max(len(rows) * len(rows[0]) for rows in model.shown) <= 12


def test_context_that_is_kept_for_each_row_counts_where_memory_is_scarce(monkeypatch):
    rows = [[1, 2]] * 6
    for device in ("cpu", "cuda"):
        monkeypatch.setitem(MAX_BATCH_TOKENS, device, 12)
    assert list(token_batches(rows, torch.device("cuda"), 4)) == [[0, 1], [2, 3], [4, 5]]
    assert list(token_batches(rows, torch.device("cpu"), 4)) == [[0, 1, 2, 3, 4, 5]]


def test_a_batch_that_does_not_fit_memory_is_halved():
    class Cramped(ToyModel):
        def logits(self, ids, attention_mask, wanted):
            if len(ids) > 2:
                raise torch.OutOfMemoryError("too many rows")
            return super().logits(ids, attention_mask, wanted)

    model = Cramped(torch.tensor([1, 2, 3]), vocab_size=9, mask_token_id=MASK)
    filled = infill(model, [[given, MASK, MASK] for given in range(7)], decoding=Decoding(denoising=GREEDY))
    assert [one.ids for (one,) in filled] == [[given, 2, 3] for given in range(7)]


def test_a_canvas_without_masks_or_beyond_the_context_is_refused():
    model = Watched([1, 2, 3])
    with pytest.raises(CanvasError, match="must hold at least one mask token; got none"):
        infill(model, [[1, 2]])
    with pytest.raises(CanvasError, match="must have at most 3 tokens; got 4"):
        infill(model, [[MASK] * 4])


@pytest.mark.parametrize("threshold", [0.0, 1.5])
def test_a_threshold_that_is_no_probability_is_refused(threshold):
    with pytest.raises(
        SettingsError, match=f"threshold must be above 0 and at most 1, or None; got {threshold}"
    ):
        Denoising(threshold=threshold)


def llada_generate(model, prompt, num_tokens, block_length, num_steps, banned):
    """The published loop at temperature 0: full logits, one row, every step."""
    x = torch.tensor([[*prompt, *[model.mask_token_id] * num_tokens]])
    everywhere = torch.ones_like(x, dtype=torch.bool)
    blocks = num_tokens // block_length
    for block in range(blocks):
        end = len(prompt) + (block + 1) * block_length
        for count in commit_counts(int((x[0, :end] == model.mask_token_id).sum()), num_steps // blocks):
            logits = model.logits(x, everywhere, everywhere)
            logits[:, banned] = -math.inf
            best = logits.argmax(-1)
            confidence = logits.softmax(-1).gather(1, best[:, None])[:, 0]
            confidence[(x[0] != model.mask_token_id) | (torch.arange(x.shape[1]) >= end)] = -math.inf
            chosen = confidence.topk(count).indices
            x[0, chosen] = best[chosen]
    return x[0].tolist()


@pytest.mark.parametrize(("block_length", "num_steps"), [(8, 8), (4, 8), (4, 6), (2, 4)])
def test_an_answer_is_that_of_lladas_published_loop(model, block_length, num_steps):
    prompt = [0, 9, 30, 77, 120, 300, 5]
    canvas = [*prompt, *[model.mask_token_id] * 8]
    how = Denoising(temperature=0.0, steps=num_steps, cache="exact")
    decoding = Decoding(denoising=how, block_length=block_length)
    expected = llada_generate(model, prompt, 8, block_length, num_steps, sorted(model.banned_ids))
    assert infill(model, [canvas], decoding=decoding)[0][0].ids == expected
