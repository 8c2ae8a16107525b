"""Cache modes against passes over everything at once, through transformers' own forward."""

from __future__ import annotations

import math

import pytest
import torch

from dspy_diffusion_infill.engine import window
from dspy_diffusion_infill.engine.cache import Contexts, choose_mode
from dspy_diffusion_infill.engine.decoder import BidirectionalDecoder
from dspy_diffusion_infill.engine.denoise import infill
from dspy_diffusion_infill.engine.model import ToyModel, load
from dspy_diffusion_infill.engine.reverse import Decoding
from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.prompts.canvas import Denoising

CONTEXT = [31, 90, 77, 215, 40, 12, 9]


@pytest.fixture(autouse=True, params=[0, 1])
def few_neighbours(request, monkeypatch):
    """A canvas here is shorter than the neighbourhood of a window."""
    monkeypatch.setattr(window, "NEIGHBOURS", request.param)
    monkeypatch.setattr(window, "NEIGHBOURS_BESIDE_CONTEXT", 2 * request.param)


@pytest.fixture(scope="module")
def grouped(published):
    """A model whose heads share keys and values, two by two."""
    return load(str(published), device="cpu")


@pytest.fixture(scope="module")
def shifted(grouped):
    """The same, read one place before each token."""
    return BidirectionalDecoder(grouped.network, grouped.vocabulary, "shifted", 128, shift=1)


@pytest.fixture(params=["grouped", "shifted"])
def either(request):
    return request.getfixturevalue(request.param)


def canvases(model):
    mask = model.mask_token_id
    return [
        [7, 60, mask, mask, 210, mask, 33, *CONTEXT],
        [mask, mask, 200, 19, *CONTEXT],
        [50, 61, 7, 60, mask, 8, 19, 44, mask, mask, mask, 100, *CONTEXT],
    ]


def decoding(mode, **changes):
    return Decoding(denoising=Denoising(cache=mode, **{"temperature": 0.0, **changes}))


def by_hand(model, ids, num_context, blind):
    """Greedy steps, each one pass over the canvas as it was and, behind it, the places that were masked then.

    The canvas sees the canvas; the places see it but for themselves, and each other. Blind: context sees
    context alone.
    """
    length, split = len(ids), len(ids) - num_context
    masked = [at for at, token in enumerate(ids) if token == model.mask_token_id]
    reach = window.NEIGHBOURS_BESIDE_CONTEXT if blind else window.NEIGHBOURS
    near = range(-max(reach, model.shift), reach + 1)
    end = split if blind else length
    places = sorted({at + offset for at in masked for offset in near if 0 <= at + offset < end})
    now, copies, total = list(ids), [], 0.0
    for _ in masked:
        visible = torch.ones(length + len(copies), length + len(copies), dtype=torch.bool)
        visible[:length, length:] = False
        visible[length:, copies] = False
        visible[split:length, :split] &= not blind
        logits = model.network(
            input_ids=torch.tensor([[*ids, *[now[at] for at in copies]]]),
            position_ids=torch.tensor([[*range(length), *copies]]),
            attention_mask=visible[None, None],
            use_cache=False,
        ).logits[0]
        logits[:, sorted(model.banned_ids)] = -math.inf
        row = {at: max(at - model.shift, 0) for at in masked}
        row = {at: length + copies.index(row[at]) if copies else row[at] for at in masked}
        sure, best = logits.log_softmax(1).max(1)
        chosen = max((at for at in masked if now[at] == model.mask_token_id), key=lambda at: sure[row[at]])
        now[chosen], total, copies = int(best[row[chosen]]), total + float(sure[row[chosen]]), places
    return now, total


@pytest.mark.parametrize("mode", ["window", "context"])
def test_a_step_computes_what_one_pass_over_kept_and_new_places_would(either, mode):
    rows = canvases(either)
    filled = infill(either, rows, decoding=decoding(mode), num_context=[len(CONTEXT)] * 3)
    for ids, (one,) in zip(rows, filled, strict=True):
        expected, log_likelihood = by_hand(either, ids, len(CONTEXT), blind=mode == "context")
        assert one.ids == expected
        assert one.log_likelihood == pytest.approx(log_likelihood, abs=1e-3)


def test_the_first_step_of_a_window_is_exact(either):
    at_once = {"steps": 1, "temperature": 1.0}
    exact = infill(either, canvases(either), num_candidates=3, decoding=decoding("exact", **at_once))
    window = infill(either, canvases(either), num_candidates=3, decoding=decoding("window", **at_once))
    assert [[one.ids for one in group] for group in window] == [[one.ids for one in group] for group in exact]


@pytest.mark.parametrize("mode", ["window", "context"])
@pytest.mark.parametrize("threshold", [None, 0.05])
def test_candidates_do_not_see_one_another_nor_other_canvases(either, mode, threshold, monkeypatch):
    how = decoding(mode, temperature=2.0, threshold=threshold)
    rows = canvases(either)
    together = infill(either, rows, num_candidates=5, decoding=how, num_context=[len(CONTEXT)] * 3)
    assert all(len({tuple(one.ids) for one in group}) == 5 for group in together)
    monkeypatch.setattr(window, "MAX_PACKED_TOKENS", 5)
    for ids, group in zip(rows, together, strict=True):
        (alone,) = infill(either, [ids], num_candidates=5, decoding=how, num_context=[len(CONTEXT)])
        assert [one.ids for one in alone] == [one.ids for one in group]
        assert [one.num_passes for one in alone] == [one.num_passes for one in group]


class Watched(BidirectionalDecoder):
    """Remembers the shape of what it computes."""

    def __init__(self, model):
        super().__init__(model.network, model.vocabulary, "watched", 128)
        self.shapes = []

    def logits(self, ids, attention_mask, wanted):
        self.shapes.append(tuple(ids.shape))
        return super().logits(ids, attention_mask, wanted)

    def encode(self, ids, positions, visible, memory):
        self.shapes.append(tuple(ids.shape))
        return super().encode(ids, positions, visible, memory)


def shapes_of(grouped, mode, num_calls=1):
    model, contexts = Watched(grouped), Contexts()
    for seed in range(num_calls):
        infill(
            model, [[7, 60, *[model.mask_token_id] * 3, 33, *CONTEXT]], num_candidates=4, seed=seed,
            decoding=decoding(mode, temperature=5.0), num_context=[len(CONTEXT)], contexts=contexts,
        )  # fmt: skip
    return model.shapes


def test_candidates_share_the_first_pass_in_every_mode(grouped, monkeypatch):
    monkeypatch.setattr(window, "NEIGHBOURS", 1)
    assert shapes_of(grouped, "exact") == [(1, 13), (4, 13), (4, 13)]
    assert shapes_of(grouped, "window") == [(1, 13), (1, 20), (1, 20)]


def test_a_context_is_encoded_once_for_all_calls(grouped, monkeypatch):
    monkeypatch.setattr(window, "NEIGHBOURS_BESIDE_CONTEXT", 0)
    canvas = [(1, 6), (1, 12), (1, 12)]
    assert shapes_of(grouped, "context", num_calls=2) == [(1, 7), *canvas, *canvas]


def test_contexts_are_told_apart(grouped):
    mask, how = grouped.mask_token_id, decoding("context")
    rows = [[7, mask, 33, *CONTEXT], [7, mask, 33, *CONTEXT[::-1]], [7, mask, 33]]
    contexts = Contexts()
    together = infill(grouped, rows, decoding=how, num_context=[7, 7, 0], contexts=contexts)
    for ids, tail, (one,) in zip(rows, [7, 7, 0], together, strict=True):
        ((alone,),) = infill(grouped, [ids], decoding=how, num_context=[tail])
        assert one.ids == alone.ids
        assert one.log_likelihood == pytest.approx(alone.log_likelihood, abs=1e-4)
        assert one.ids[3:] == ids[3:]


def test_a_model_without_keys_and_values_runs_exact_or_says_so(grouped):
    toy = ToyModel(torch.tensor([1]), 3, 2)
    assert choose_mode(toy, "auto") == "exact"
    assert choose_mode(grouped, "auto") == "window"
    assert choose_mode(grouped, "context") == "context"
    with pytest.raises(SettingsError, match=r"cache must be 'auto' or 'exact' for toy, .* got 'window'"):
        infill(toy, [[2]], decoding=decoding("window"))
