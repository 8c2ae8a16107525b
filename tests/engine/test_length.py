from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspy_diffusion_infill.engine.infiller import DiffusionInfiller
from dspy_diffusion_infill.engine.length import best_length, lengths_to_try, masked_parts, with_best_lengths
from dspy_diffusion_infill.errors import CanvasError
from dspy_diffusion_infill.prompts.canvas import Canvas, Denoising, Masked, Message

CANVAS = Canvas(
    (Message("system", ("Rate", Masked(8), ".")), Message("user", (Masked(4),))),
    (Message.text("user", "x"),),
)


def test_lengths_lie_around_the_one_that_was_asked_for():
    assert lengths_to_try(8) == [2, 4, 6, 8, 10, 12, 16]
    assert lengths_to_try(1) == [1, 2, 3, 4]


def test_the_length_that_stands_out_from_the_line_is_best():
    # In steps of ln 2: x = 0, 1, 2, 3; y = -1, -2, -3, -2.5, on average -2.125. The slope is
    # (-1.5 * 1.125 - .5 * .125 - .5 * .875 - 1.5 * .375) / 5 = -.55; above the line by .3, -.15, -.6, .45.
    assert best_length({1: -1.0, 2: -2.0, 4: -3.0, 8: -2.5}, asked=2) == 8


@given(st.floats(-3, 3), st.floats(-5, 0), st.sampled_from(lengths_to_try(8)))
def test_a_line_in_the_logarithm_of_the_length_favours_no_length(slope, level, planted):
    line = {length: level + slope * math.log(length) for length in lengths_to_try(8)}
    assert best_length({**line, planted: line[planted] + 0.1}, asked=1) == planted


def test_of_two_lengths_the_longer_may_be_best():
    canvas = Canvas((Message("system", ("Rate", Masked(4, 5), ".")),))
    for wanted in (4, 5):
        found = with_best_lengths(
            canvas,
            lambda canvases, wanted=wanted: [float(masked_parts(one) == [wanted]) for one in canvases],
            room=9,
        )
        assert masked_parts(found) == [wanted]
    longest = with_best_lengths(
        canvas, lambda canvases: [float(masked_parts(one) == [6]) for one in canvases], 9
    )
    assert masked_parts(longest)[0] in (4, 5)


def test_two_lengths_tell_nothing():
    assert best_length({1: -9.0, 2: -1.0}, asked=1) == 1


def test_parts_are_fitted_one_after_the_other_and_the_rest_stays():
    seen = []

    def confidences(canvases):
        """Favours 12 tokens in the first part, then 2 in the second."""
        seen.append([masked_parts(canvas) for canvas in canvases])
        wanted = 12 if len(seen) == 1 else 2
        return [float(masked_parts(canvas)[len(seen) - 1] == wanted) for canvas in canvases]

    fitted = with_best_lengths(CANVAS, confidences, room=100)
    assert masked_parts(fitted) == [12, 2]
    assert seen[0] == [[length, 4] for length in (2, 4, 6, 8, 10, 12, 16)]
    assert seen[1] == [[12, length] for length in (1, 2, 3, 4, 5, 6, 8)]
    assert fitted.context == CANVAS.context
    assert fitted.messages[0].parts[::2] == ("Rate", ".")


def test_no_length_is_tried_that_does_not_fit():
    tried = []
    with_best_lengths(
        CANVAS, lambda canvases: [tried.append(max(masked_parts(one))) or 0.0 for one in canvases], room=2
    )
    assert max(tried) == 10


def test_a_canvas_beyond_the_context_is_refused_before_lengths_are_tried(model):
    for parts in ((Masked(4, 12),), (Masked(4),)):
        long = Canvas((Message("user", ("x " * 140, *parts)),))
        infiller = DiffusionInfiller(model, Denoising(length="adaptive"))
        with pytest.raises(CanvasError, match="at most 128 tokens"):
            infiller.infill([long], num_candidates=1, seed=0)


@pytest.mark.parametrize("mode", ["exact", "context"])
def test_an_adaptive_infiller_fills_as_many_masks_as_it_is_surest_of(model, mode):
    how = Denoising(length="adaptive", temperature=0.0, cache=mode)
    infiller = DiffusionInfiller(model, how)
    ((filling,),) = infiller.infill([CANVAS], num_candidates=1, seed=0)
    fitted = with_best_lengths(CANVAS, infiller._confidences, 128 - infiller.num_tokens(CANVAS))
    assert masked_parts(fitted) != masked_parts(CANVAS)
    fixed = DiffusionInfiller(model, Denoising(temperature=0.0, cache=mode))
    assert fixed.infill([fitted], num_candidates=1, seed=0) == [[filling]]
    # one step over eight masks: each token's probability among what was allowed
    (confidence,) = infiller._confidences([Canvas((Message("user", (Masked(1),)),))])
    ((one,),) = fixed.infill([Canvas((Message("user", (Masked(1),)),))], num_candidates=1, seed=0)
    assert confidence == pytest.approx(one.log_likelihood)
