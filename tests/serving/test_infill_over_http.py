"""Infilling on a server against infilling in this process: the same tokens."""

from __future__ import annotations

import asyncio
import random
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import httpx
import pytest

from dspy_diffusion_infill.engine.infiller import DiffusionInfiller
from dspy_diffusion_infill.engine.likelihood import estimate_nelbo, response_target
from dspy_diffusion_infill.errors import CanvasError
from dspy_diffusion_infill.prompts.canvas import Canvas, Denoising, Masked, Message
from dspy_diffusion_infill.serving.client import RemoteInfiller

CONTEXT = (Message.text("user", "A fine film."), Message.text("assistant", "5"))


def canvas(number=0, masks=4, context=CONTEXT):
    text = f"Rate text {number} from"
    return Canvas((Message("system", (text, Masked(masks), ", where", Masked(2), ".")),), context)


def same(found, expected):
    """Equal texts, and numbers up to rounding."""
    assert [[one.texts for one in each] for each in found] == [
        [one.texts for one in each] for each in expected
    ]
    for one, other in zip(chain(*found), chain(*expected), strict=True):
        assert one.num_passes == other.num_passes
        assert one.log_likelihood == pytest.approx(other.log_likelihood, abs=1e-2)
        for part, expected_part in zip(one.confidences, other.confidences, strict=True):
            assert part == pytest.approx(expected_part, abs=1e-2)


@pytest.mark.parametrize(
    "how",
    [
        Denoising(),
        Denoising(cache="exact", remasking="random", steps=3),
        Denoising(cache="context", temperature=0.0),
        Denoising(length="adaptive", top_p=0.9),
        Denoising(guidance=0.5, top_k=20, threshold=0.4),
    ],
    ids=str,
)
def test_over_http_as_in_this_process(url, embedded, how):
    canvases = [canvas(1), canvas(2, masks=7, context=()), canvas(3)]
    here = DiffusionInfiller(embedded, how)
    with RemoteInfiller(url, denoising=how) as there:
        found = there.infill(canvases, num_candidates=3, seed=5)
        assert (there.name, there.context_length) == (here.name, here.context_length)
        assert there.num_tokens(canvases[0]) == here.num_tokens(canvases[0])
        assert there.offsets("Rate it: ü.") == here.offsets("Rate it: ü.")
    same(found, here.infill(canvases, num_candidates=3, seed=5))


def test_a_range_of_lengths_is_chosen_from(url, embedded):
    open_canvas = Canvas((Message("system", ("Rate the text", Masked(2, 9), ".")),))
    with RemoteInfiller(url, denoising=Denoising(temperature=0.0)) as there:
        ((one,),) = there.infill([open_canvas], num_candidates=1, seed=0)
    here = DiffusionInfiller(embedded, Denoising(temperature=0.0))
    same([[one]], here.infill([open_canvas], num_candidates=1, seed=0))
    assert 2 <= len(one.confidences[0]) <= 9


def test_for_await_as_without(url):
    async def ask():
        async with RemoteInfiller(url) as there:
            return await there.ainfill([canvas(1), canvas(2, context=())], num_candidates=2, seed=3)

    with RemoteInfiller(url) as there:
        same(asyncio.run(ask()), there.infill([canvas(1), canvas(2, context=())], num_candidates=2, seed=3))


@pytest.mark.slow
def test_64_clients_with_canvases_of_their_own_get_what_each_gets_alone(url, embedded):
    draw = random.Random(0)
    modes = ("window", "exact", "context")
    wanted = [
        (
            canvas(n, draw.choice((3, 5, 6)), draw.choice((CONTEXT, ()))),
            Denoising(cache=draw.choice(modes)),
            n,
        )
        for n in range(64)
    ]

    def ask(one):
        with RemoteInfiller(url, denoising=one[1]) as there:
            return there.infill([one[0]], num_candidates=1, seed=one[2])

    with ThreadPoolExecutor(64) as pool:
        found = list(pool.map(ask, wanted))
    for (one, how, seed), fillings in list(zip(wanted, found, strict=True))[::8]:
        same(fillings, DiffusionInfiller(embedded, how).infill([one], num_candidates=1, seed=seed))
    metrics = httpx.get(f"{url}/metrics", timeout=60).text
    assert "diffusion_infill_open_requests 0.0" in metrics
    assert "diffusion_infill_waiting_canvases 0.0" in metrics
    assert "diffusion_infill_running_rows 0.0" in metrics


def test_what_the_server_cannot_lay_out_is_a_canvas_error(url):
    with RemoteInfiller(url) as there:
        with pytest.raises(CanvasError, match="at most 512 tokens, the model's context; got"):
            there.infill([canvas(0, masks=600)], num_candidates=1, seed=0)
        with pytest.raises(CanvasError, match="n: Input should be less than or equal to 1024"):
            there.infill([canvas()], num_candidates=1025, seed=0)


def test_scores_are_those_of_this_process(url, embedded):
    messages = [{"role": "user", "content": "A dull film."}]
    body = {
        "inputs": [{"messages": messages, "response": "Rate it from 1 to 5."}, {"text": "Rate it."}],
        "num_samples": 8,
        "seed": 2,
    }
    first, second = httpx.post(f"{url}/v1/score", json=body, timeout=60).json()["scores"]
    target = response_target(
        embedded.vocabulary, [Message.text("user", "A dull film.")], "Rate it from 1 to 5."
    )
    (here,) = estimate_nelbo(embedded, [target], num_samples=8, seed=2)
    assert first["nelbo"] == pytest.approx(here.nelbo, rel=1e-4)
    assert first["perplexity"] == pytest.approx(here.perplexity, rel=1e-4)
    assert first["num_tokens"] == here.num_tokens
    assert second["num_tokens"] == len(embedded.vocabulary.encode("Rate it."))


def test_usage_counts_what_was_read_and_what_was_written(url, embedded):
    body = {"canvases": [{"messages": [{"role": "user", "content": ["Rate", {"mask": 3}]}]}], "n": 2}
    answer = httpx.post(f"{url}/v1/infill", json=body, timeout=60).json()
    given = DiffusionInfiller(embedded).num_tokens(Canvas((Message("user", ("Rate", Masked(3))),))) - 3
    assert answer["usage"] == {
        "prompt_tokens": given, "completion_tokens": 6, "total_tokens": given + 6
    }  # fmt: skip
