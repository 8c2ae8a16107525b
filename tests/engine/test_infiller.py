from __future__ import annotations

import pytest
import torch

from dspy_diffusion_infill.engine.infiller import DiffusionInfiller
from dspy_diffusion_infill.errors import CanvasError, SettingsError
from dspy_diffusion_infill.prompts.canvas import Canvas, Denoising, Filling, Infiller, Masked, Message, Scorer

SHOTS = (Message.text("user", "What a fine film!"), Message.text("assistant", "5"))
CANVAS = Canvas((Message("system", ("Rate", Masked(3), " é👍 <|mdm_mask|>", Masked(2), ".")),), context=SHOTS)


@pytest.fixture
def infiller(model):
    return DiffusionInfiller(model)


def test_it_is_an_infiller(infiller):
    assert isinstance(infiller, Infiller)


def test_every_masked_part_of_every_candidate_is_filled(infiller):
    other = Canvas((Message("user", ("x", Masked(4))),))
    filled = infiller.infill([CANVAS, other], num_candidates=3, seed=0)
    assert [[len(one.texts) for one in group] for group in filled] == [[2, 2, 2], [1, 1, 1]]
    assert all(isinstance(one, Filling) and one.num_passes == 5 for one in filled[0])
    assert len({one.texts for one in filled[0]}) > 1
    assert not any("<|" in text for group in filled for one in group for text in one.texts)


def test_equal_arguments_give_equal_answers_beside_any_other_canvas(infiller):
    other = Canvas((Message("user", ("x", Masked(9), " the review")),))
    alone = infiller.infill([CANVAS], num_candidates=2, seed=7)
    together = infiller.infill([other, CANVAS], num_candidates=2, seed=7)
    assert [one.texts for one in alone[0]] == [one.texts for one in together[1]]
    assert infiller.infill([CANVAS], num_candidates=2, seed=8) != alone


def test_the_context_follows_the_messages_and_changes_the_filling(infiller):
    # BOS; two header tokens around the role, the blank line, the content, and one end token for each turn.
    encode = infiller.model.vocabulary.encode
    turns = [
        len(encode("Rate")) + 3 + len(encode(" é👍 <|mdm_mask|>")) + 2 + len(encode(".")),
        len(encode("What a fine film!")),
        len(encode("5")),
    ]
    roles = sum(len(encode(role)) for role in ("system", "user", "assistant"))
    assert infiller.num_tokens(CANVAS) == 1 + sum(turns) + roles + 3 * (3 + len(encode("\n\n")))
    cold = DiffusionInfiller(infiller.model, Denoising(temperature=0.0))
    (with_context,) = cold.infill([CANVAS], num_candidates=1, seed=0)
    (without,) = cold.infill([Canvas(CANVAS.messages)], num_candidates=1, seed=0)
    assert with_context[0].log_likelihood != without[0].log_likelihood


def test_the_context_is_read_after_the_messages(model, monkeypatch):
    infiller = DiffusionInfiller(model, Denoising(cache="exact"))
    shown = []
    logits = infiller.model.logits
    monkeypatch.setattr(
        infiller.model, "logits", lambda ids, *rest: (shown.append(ids), logits(ids, *rest))[1]
    )
    infiller.infill([CANVAS], num_candidates=1, seed=0)
    text = infiller.model.vocabulary.decode(shown[0][0].tolist())
    assert text.index("Rate") < text.index("fine film") < text.index("5")


def test_a_canvas_beyond_the_context_is_refused_with_both_counts(infiller):
    long = Canvas((Message("user", ("x", Masked(200))),))
    with pytest.raises(CanvasError, match=r"at most 128 tokens, the model's context; got 2\d\d"):
        infiller.infill([long], num_candidates=1, seed=0)


def test_the_name_tells_checkpoint_and_settings(infiller, model):
    how = "temperature=0.8&guidance=0.0&remasking=low_confidence&length=fixed&cache=window"
    assert infiller.name == f"{model.name}?{how}"
    assert DiffusionInfiller(model, Denoising(steps=3)).name != infiller.name


def test_offsets_are_those_of_the_tokenizer(infiller):
    assert infiller.offsets("Rate is") == [(0, 4), (4, 7)]


def test_it_says_how_likely_a_text_is_where_a_canvas_is_masked(infiller):
    model = infiller.model
    text, tail = " the film", " ends"
    canvas = Canvas((Message("system", ("Rate", Masked(9), " now", Masked(1))),), context=SHOTS)
    found = infiller.nll_per_token([canvas], [[text, tail]])
    ids = [model.vocabulary.encode(one) for one in (text, tail)]
    fitting = Canvas(
        (Message("system", ("Rate", Masked(len(ids[0])), " now", Masked(len(ids[1])))),), context=SHOTS
    )
    layout = model.vocabulary.lay_out((*fitting.messages, *fitting.context))
    where = [at for part in layout.masked for at in part]
    row = torch.tensor([layout.ids])
    chosen = torch.zeros_like(row)
    chosen[0, where] = 1
    logits = model.logits(row, torch.ones_like(row), chosen.bool())
    expected = -logits.log_softmax(-1)[range(len(where)), ids[0] + ids[1]].mean()
    assert found == pytest.approx([float(expected)], abs=1e-4)


def test_how_likely_a_text_is_depends_on_the_context_and_on_no_other_canvas(infiller):
    with_context = Canvas((Message("system", ("Rate", Masked(2))),), context=SHOTS)
    without = Canvas(with_context.messages)
    together = infiller.nll_per_token([with_context, without], [[" it"], [" it"]])
    alone = [infiller.nll_per_token([canvas], [[" it"]])[0] for canvas in (with_context, without)]
    assert together == pytest.approx(alone, abs=1e-4)
    assert abs(together[0] - together[1]) > 1e-6
    assert isinstance(infiller, Scorer)


def test_a_text_that_does_not_fit_into_the_context_is_refused(infiller):
    canvas = Canvas((Message("system", ("Rate", Masked(1))),))
    with pytest.raises(CanvasError, match="at most"):
        infiller.nll_per_token([canvas], [[" word" * infiller.context_length]])


def test_nothing_to_score_or_to_fill_is_refused(model):
    infiller, canvas = DiffusionInfiller(model), Canvas((Message("system", ("Rate", Masked(2), ".")),))
    with pytest.raises(CanvasError, match=r"texts must hold something to score; got \[''\]"):
        infiller.nll_per_token([canvas], [[""]])
    with pytest.raises(CanvasError, match=r"one text for each masked part, 1; got 'x'"):
        infiller.nll_per_token([canvas], ["x"])
    with pytest.raises(CanvasError, match=r"texts must be as many as canvases, 1; got 2"):
        infiller.nll_per_token([canvas], [["a"], ["b"]])
    for number in (0, -1):
        with pytest.raises(SettingsError, match=rf"num_candidates must be at least 1; got {number}"):
            infiller.infill([canvas], num_candidates=number, seed=0)
