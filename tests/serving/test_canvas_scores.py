"""How likely texts are in the masked parts of canvases: on a server, and through a search that asks it."""

from __future__ import annotations

import httpx
import pytest

from dspy_diffusion_infill.engine.infiller import DiffusionInfiller
from dspy_diffusion_infill.errors import CanvasError
from dspy_diffusion_infill.prompts.canvas import Canvas, Masked, Message, Scorer
from dspy_diffusion_infill.prompts.windows import SlidingWindow
from dspy_diffusion_infill.search.rounds import check_scorer
from dspy_diffusion_infill.serving.client import RemoteInfiller

CONTEXT = (Message.text("user", "A fine film."), Message.text("assistant", "5"))
TWO_PARTS = Canvas((Message("system", ("Rate the", Masked(1), " from", Masked(3, 9), ".")),), CONTEXT)
ONE_PART = Canvas((Message("system", (Masked(2),)), Message("user", ("A dull film.",))))
TEXTS = ((" film", " 1 to 5"), ("Say how warm it is.",), (" dog", " 9"))


def test_over_http_as_in_this_process(url, embedded):
    canvases = [TWO_PARTS, ONE_PART, TWO_PARTS]
    with RemoteInfiller(url) as there:
        found = there.nll_per_token(canvases, TEXTS)
        assert isinstance(there, Scorer)
    expected = DiffusionInfiller(embedded).nll_per_token(canvases, TEXTS)
    assert found == pytest.approx(expected, rel=1e-4)
    assert len({round(one, 2) for one in expected}) == 3


def test_least_sure_windows_and_screening_take_a_served_model(url):
    with RemoteInfiller(url) as there:
        assert check_scorer(there, SlidingWindow(order="least_sure"), 0.25) is there


def test_texts_that_do_not_fit_the_masked_parts_are_refused(url):
    with RemoteInfiller(url) as there:
        with pytest.raises(CanvasError, match=r"one text for each masked part, 2; got \[' film'\]"):
            there.nll_per_token([TWO_PARTS], [(" film",)])
        with pytest.raises(CanvasError, match="at most 512 tokens, the model's context; got"):
            there.nll_per_token([ONE_PART], [("warm " * 600,)])


def test_what_was_read_is_counted_for_the_client(url, embedded):
    messages = [{"role": "user", "content": ["Rate", {"mask": 9}]}]
    body = {"canvases": [{"messages": messages, "texts": [" it."]}]}
    answer = httpx.post(f"{url}/v1/score", json=body, timeout=60).json()
    num_tokens = DiffusionInfiller(embedded).num_tokens(
        Canvas((Message("user", ("Rate", Masked(len(embedded.vocabulary.encode(" it."))))),))
    )
    assert answer["usage"] == {
        "prompt_tokens": num_tokens, "completion_tokens": 0, "total_tokens": num_tokens
    }  # fmt: skip
    assert (answer["scores"], len(answer["nll_per_token"])) == (None, 1)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"inputs": [{"text": "x"}], "canvases": [{"messages": [], "texts": ["x"]}]},
        {"inputs": [{"text": "x"}], "context": [{"role": "user", "content": "x"}]},
        {"canvases": [{"messages": [{"role": "user", "content": [{"mask": 1}]}], "texts": ["x"]}] * 65},
        {"canvases": [{"messages": [{"role": "user", "content": [{"mask": 1}]}], "texts": ["x"] * 1025}]},
    ],
)
def test_a_body_of_another_shape_is_refused(url, body):
    answer = httpx.post(f"{url}/v1/score", json=body, timeout=60)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")
