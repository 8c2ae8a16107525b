"""Each check of a checkpoint finds the breach that it is there for."""

import pytest
import torch

from dspy_diffusion_infill.engine import probe, verify
from dspy_diffusion_infill.engine.calibrate import Measured
from dspy_diffusion_infill.engine.decoder import BidirectionalDecoder


class Altered:
    """A model with one thing wrong; it keeps no keys and values."""

    def __init__(self, model, alter=lambda logits, ids, mask, wanted: logits, **fields):
        self._model, self._alter = model, alter
        names = ("name", "device", "context_length", "mask_token_id", "banned_ids", "vocabulary")
        vars(self).update({name: getattr(model, name) for name in names} | fields)

    def logits(self, ids, attention_mask, wanted):
        logits = self._model.logits(ids, attention_mask, wanted)
        return self._alter(logits, ids, attention_mask, wanted)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(probe, "INSTRUCTIONS", "Rate the review from 1 to 5, where 5 is the best.")
    monkeypatch.setattr(probe, "EXAMPLES", (("A fine film", "5"), ("A dull plot", "2")))


@pytest.fixture
def roomy(model):
    return BidirectionalDecoder(model.network, model.vocabulary, "roomy@1:float32", 1024)


@pytest.fixture
def canvases(roomy):
    return probe.canvases(roomy)[0]


def test_random_weights_are_sound_though_they_write_nonsense(roomy):
    verdicts = {check.name: check.verdict for check in verify.verify(roomy)}
    assert {name for name, verdict in verdicts.items() if verdict == "failed"} == set()
    assert verdicts["rows"] == verdicts["both sides"] == verdicts["shapes"] == verdicts["ids"] == "fine"


def test_a_mask_token_that_can_be_written_fails(roomy):
    assert verify.check_ids(Altered(roomy, banned_ids=frozenset())).verdict == "failed"


def test_text_that_does_not_come_back_is_doubtful(roomy):
    lossy = Altered(roomy)
    lossy.vocabulary = type(
        "Lossy", (), {**vars(roomy.vocabulary), "encode": list, "decode": lambda self, ids: "b"}
    )()
    assert verify.check_ids(lossy).verdict == "doubtful"


def test_logits_of_the_wrong_shape_or_without_end_fail(roomy, canvases):
    short = Altered(roomy, lambda logits, *rest: logits[:, 1:])
    assert verify.check_shapes(short, canvases[0]).detail.startswith(
        "logits must be (8, 400) for these masks; got"
    )
    endless = Altered(roomy, lambda logits, *rest: logits.log_softmax(1) / 0)
    assert verify.check_shapes(endless, canvases[0]).detail == "logits must be finite; some are not"


def test_a_model_that_looks_at_other_rows_or_padding_fails(roomy, canvases):
    def by_width(logits, ids, mask, wanted):
        return logits.roll(ids.shape[1], dims=1)

    assert verify.check_rows(roomy, canvases).verdict == "fine"
    assert verify.check_rows(Altered(roomy, by_width), canvases).verdict == "failed"


def test_a_causal_model_fails(roomy, canvases):
    def blind(logits, ids, mask, wanted):
        rows, places = wanted.nonzero(as_tuple=True)
        seen = torch.stack([ids[row, : place + 1].sum() for row, place in zip(rows, places, strict=True)])
        return torch.zeros_like(logits).scatter_(1, seen[:, None] % logits.shape[1], 1.0)

    assert verify.check_sides(roomy, canvases[0]).verdict == "fine"
    assert verify.check_sides(Altered(roomy, blind), canvases[0]).verdict == "failed"


def test_keys_and_values_that_are_not_kept_right_fail(roomy, canvases, monkeypatch):
    assert verify.check_caches(Altered(roomy), canvases).detail.startswith("exact alone")
    assert "100% of the likeliest tokens are the same" in verify.check_caches(roomy, canvases).detail
    encode = roomy.encode
    monkeypatch.setattr(roomy, "encode", lambda *given: -encode(*given))
    assert verify.check_caches(roomy, canvases).verdict == "failed"


def test_a_mode_whose_fillings_are_less_likely_is_doubtful(roomy, canvases, monkeypatch):
    def measured(window):
        rows = (("exact", 2.0), ("window", window), ("context", 9.0))
        return lambda model: tuple(Measured(mode, 1.0, nll) for mode, nll in rows)

    monkeypatch.setattr(verify, "measure", measured(2.03))
    assert verify.check_caches(roomy, canvases).verdict == "fine"
    monkeypatch.setattr(verify, "measure", measured(2.05))
    assert verify.check_caches(roomy, canvases).verdict == "doubtful"


def test_a_model_that_ends_the_text_where_instructions_are_masked_is_doubtful(roomy):
    stop = min(roomy.vocabulary.stop_ids)

    def ending(share):
        def alter(logits, *rest):
            logits = torch.zeros_like(logits)
            logits[:, -1] = 1.0
            logits[: round(share * len(logits)), stop] = 2.0
            return logits

        return Altered(roomy, alter)

    assert (
        verify.check_stops(ending(0.0)).detail == "0% of the likeliest tokens where instructions are masked"
    )
    assert verify.check_stops(ending(0.4)).verdict == "fine"
    found = verify.check_stops(ending(0.8))
    assert found.verdict == "doubtful"
    assert "never taught to infill prompts" in found.detail


def test_a_sample_shows_what_was_there_and_what_was_written(roomy):
    detail = verify.sample(roomy).detail
    before = detail.split(" where the text has ")[1].split(", in ")[0]
    assert eval(before) in probe.INSTRUCTIONS
