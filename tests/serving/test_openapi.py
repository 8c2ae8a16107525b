"""The OpenAPI document, held against a live server by Schemathesis: all is answered as it says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode, checks

from dspy_diffusion_infill.serving.limits import Limits
from dspy_diffusion_infill.serving.server import create_app
from tests.serving.conftest import live


@pytest.fixture(scope="module")
def document(tiny) -> Iterator[schemathesis.BaseSchema]:
    """Of a server of a tiny model, with limits that keep answers short."""
    with live(create_app(tiny, name="tiny", limits=Limits(new_tokens=64))) as url:
        yield schemathesis.openapi.from_url(f"{url}/openapi.json")


def hold(cases):
    """Send cases, and check the answers."""

    @settings(max_examples=5, suppress_health_check=list(HealthCheck), deadline=None)
    @given(cases)
    def ask(case):
        # what the document allows may still be too much for this server, or for its model
        case.call_and_validate(timeout=60, excluded_checks=[checks.positive_data_acceptance])

    ask()


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize("path", ["infill", "score", "tokenize", "chat/completions", "completions"])
def test_every_answer_is_one_that_the_document_allows(document, path: str, mode: GenerationMode):
    operation = document[f"/v1/{path}"]["POST"]

    hold(operation.as_strategy(generation_mode=mode))


@pytest.mark.parametrize("path", ["/health", "/metrics", "/v1/models", "/v1/models/{name}"])
def test_what_takes_no_body_is_answered_as_documented(document, path: str):
    hold(document[path]["GET"].as_strategy())
