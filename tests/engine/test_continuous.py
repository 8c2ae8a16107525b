"""Tasks that join a running batch, against the same tasks alone."""

from __future__ import annotations

import math

import pytest

from dspy_diffusion_infill.engine.cache import Contexts
from dspy_diffusion_infill.engine.continuous import Batch
from dspy_diffusion_infill.engine.denoise import denoise
from dspy_diffusion_infill.engine.reverse import Decoding, Task
from dspy_diffusion_infill.prompts.canvas import Denoising

CONTEXT, OTHER = [31, 90, 77, 215, 40, 12, 9], [64, 18, 130]


def how(mode="window", **settings):
    return Decoding(denoising=Denoising(cache=mode, **{"temperature": 1.0, **settings}), block_length=4)


def tasks(model):
    """Canvases of different lengths, masks and contexts; two candidates of the first one."""
    mask = model.mask_token_id
    canvas = [7, 60, *[mask] * 5, 33, *CONTEXT]
    return {
        "first": Task(canvas, 11, len(CONTEXT)),
        "its twin": Task(canvas, 12, len(CONTEXT)),
        "short": Task([mask, mask, 90, *OTHER], 13, len(OTHER)),
        "long": Task([5] * 30 + [mask] * 9 + [60] * 20 + [mask] * 2 + CONTEXT, 14, len(CONTEXT)),
        "bare": Task([70, mask, mask, mask, 71], 15),
    }


def joined(model, decoding, order, contexts=None):
    """Each group joins a step after the one before."""
    batch, found, every = Batch(model, decoding, contexts or Contexts(2)), {}, tasks(model)
    for names in order:
        found |= batch.join({name: every[name] for name in names})
        found |= batch.step()
    while len(batch):
        found |= batch.step()
    return found


ORDERS = (
    [["first", "its twin"], ["short"], ["long", "bare"]],
    [["long"], ["bare"], ["short", "its twin", "first"]],
    [["short"], [], [], ["first", "its twin", "long", "bare"]],
)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    "settings",
    [
        {"mode": "exact"},
        {"mode": "window"},
        {"mode": "context"},
        {"mode": "window", "guidance": 1.5},
        {"mode": "context", "threshold": 0.02, "steps": 3},
        {"mode": "exact", "remasking": "random", "temperature": 0.0},
    ],
)
def test_who_joins_a_running_batch_is_filled_as_alone(model, settings, order):
    decoding = how(**settings)
    together = joined(model, decoding, order)
    for name, task in tasks(model).items():
        (alone,) = denoise(model, [task], decoding)
        assert together[name].ids == alone.ids, name
        assert together[name].num_passes == alone.num_passes
        assert together[name].log_likelihood == pytest.approx(alone.log_likelihood, abs=1e-3)
        assert together[name].probabilities == pytest.approx(alone.probabilities, abs=1e-4)


def test_who_is_dropped_leaves_the_others_as_they_were(model):
    batch, every, decoding = Batch(model, how(), Contexts()), tasks(model), how()
    batch.join(every)
    batch.drop({"first", "long"})
    assert len(batch) == 3
    found = batch.step()
    batch.drop({"short"})
    while len(batch):
        found |= batch.step()
    assert found.keys() >= {"its twin", "bare"}
    assert "long" not in found
    for name, filled in found.items():
        assert filled.ids == denoise(model, [every[name]], decoding)[0].ids


def test_nothing_is_computed_for_rows_that_are_gone(model, monkeypatch):
    batch, shapes = Batch(model, how(), Contexts()), []
    encode = model.encode
    monkeypatch.setattr(model, "encode", lambda ids, *rest: (shapes.append(len(ids)), encode(ids, *rest))[1])
    batch.join(tasks(model))
    batch.step()
    batch.drop({"first", "its twin", "short", "bare"})
    batch.step()
    assert shapes == [4, 4, 1]  # canvases: two of the five tasks share one


def test_what_is_written_before_the_first_mask_stays(model):
    mask = model.mask_token_id
    task, decoding = Task([40, *[mask] * 8], 3), how("exact", temperature=0.0)
    (whole,) = denoise(model, [task], decoding)
    batch, seen = Batch(model, decoding, Contexts()), []
    batch.join({"answer": task})
    while len(batch):
        seen.append(list(batch.written("answer")))
        batch.step()
    assert len(seen) == 7
    assert all(whole.ids[: len(ids)] == ids for ids in seen)
    assert len(seen[-1]) > len(seen[0]) >= 1


def test_an_emptied_batch_takes_new_tasks(model):
    batch, every = Batch(model, how("context"), Contexts(2)), tasks(model)
    for _ in range(2):
        batch.join({"bare": every["bare"]})
        batch.drop({"bare"})
        assert (len(batch), batch.step()) == (0, {})


def test_contexts_last_asked_for_are_kept(model, monkeypatch):
    encoded, encode = [], model.encode
    monkeypatch.setattr(
        model, "encode", lambda ids, *rest: (encoded.append(ids.tolist()), encode(ids, *rest))[1]
    )
    contexts = Contexts(2)
    for ids in ((1, 2), (3, 4), (1, 2), (5, 6), (1, 2), (3, 4)):
        contexts.encoded(model, ids)
    assert encoded == [[[1, 2]], [[3, 4]], [[5, 6]], [[3, 4]]]


def test_probabilities_are_those_of_the_committed_tokens_in_reading_order(model):
    (one,) = denoise(model, [tasks(model)["long"]], how(temperature=0.0))
    assert len(one.probabilities) == 11
    assert one.log_likelihood == pytest.approx(sum(map(math.log, one.probabilities)), abs=1e-4)
