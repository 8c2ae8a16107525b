"""Bodies that nobody thought of: never a failure of the server, always an answer of the right shape."""

from __future__ import annotations

import json

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

BODIES = {
    "/v1/infill": {"canvases": [{"messages": [{"role": "user", "content": ["Rate", {"mask": 2}]}]}], "n": 1},
    "/v1/score": {"inputs": [{"text": "Rate it."}], "num_samples": 2},
    "/v1/tokenize": {"text": "Rate it."},
    "/v1/chat/completions": {
        "model": "embedded", "messages": [{"role": "user", "content": "Rate"}], "max_tokens": 2, "stop": ["x"]
    },
    "/v1/completions": {"model": "embedded", "prompt": "Rate", "max_tokens": 2, "suffix": "."},
}  # fmt: skip
SCALARS = (
    st.none() | st.booleans() | st.integers(-3, 3) | st.just(10**9) | st.floats(-2, 2) | st.text(max_size=4)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


def places(body, path=()):
    """Every place in a body, by its path."""
    yield path
    items = body.items() if isinstance(body, dict) else enumerate(body) if isinstance(body, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


def changed(body, path, value):
    """The body with another value at one place."""
    if not path:
        return value
    copy = dict(body) if isinstance(body, dict) else list(body)
    copy[path[0]] = changed(body[path[0]], path[1:], value)
    return copy


@pytest.mark.parametrize("route", BODIES)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_body_is_answered_or_refused_in_words(url, route, data):
    body = BODIES[route]
    path = data.draw(st.sampled_from(list(places(body))))
    sent = json.dumps(changed(body, path, data.draw(VALUES)))  # httpx takes json=None for no body at all
    answer = httpx.post(url + route, content=sent, headers={"content-type": "application/json"}, timeout=120)
    assert answer.status_code in (200, 400, 404), answer.text
    if answer.status_code != 200:
        assert answer.json()["error"]["message"].endswith(".")
