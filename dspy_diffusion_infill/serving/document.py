"""The OpenAPI document: what each path takes and gives, refusals too, as this server does it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from dspy_diffusion_infill.serving.gate import OPEN_PATHS
from dspy_diffusion_infill.serving.schemas import ErrorAnswer

REFUSALS = {
    401: "With keys: it carries none, or a wrong one",
    403: "Without keys: its Host is not this machine",
    408: "The request came too slowly",
    413: "The body is too large",
    500: "The server failed",
}
"""Of every path."""
REFUSALS_AT_WORK = {
    400: "The request cannot be done as asked",
    404: "Another model",
    415: "The body does not say that it is JSON",
    429: "Too many requests",
    503: "The server is stopping, or out of memory",
    504: "The answer took too long",
}
"""Of paths that take a body."""
HEADERS = {
    401: {"WWW-Authenticate": {"required": True, "schema": {"const": "Bearer"}}},
    429: {"Retry-After": {"required": True, "schema": {"type": "integer", "minimum": 1, "maximum": 60}}},
    503: {"Retry-After": {"schema": {"type": "integer", "minimum": 1, "maximum": 60}}},
}


def document(app: FastAPI, model: str, *, has_keys: bool) -> dict[str, Any]:
    """Describe an application.

    Args:
        app: With all its paths.
        model: The name it serves, for the examples.
        has_keys: Whether it asks for one.
    """
    found = get_openapi(title=app.title, version=app.version, routes=app.routes)
    components = found["components"]
    for unused in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(unused, None)
    errors = ErrorAnswer.model_json_schema(ref_template="#/components/schemas/{model}")
    components["schemas"] |= {**errors.pop("$defs"), "ErrorAnswer": errors}
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for path, operation in _operations(found):
        operation["security"] = [{"key": []}] if has_keys and path not in OPEN_PATHS else []
        _add_refusals(operation)
        for parameter in operation.get("parameters", ()):
            parameter["example"] = model  # the one there is: a model's name
    for schema in components["schemas"].values():
        for example in schema.get("examples", ()):
            example.update({"model": model} if "model" in example else {})
    return found


def _operations(found: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, operations in found["paths"].items():
        for operation in operations.values():
            yield path, operation


def _add_refusals(operation: dict[str, Any]) -> None:
    answers = operation["responses"]
    answers.pop("422", None)  # FastAPI's own, which this server says as 400
    body = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorAnswer"}}}
    for status, why in (REFUSALS | (REFUSALS_AT_WORK if "requestBody" in operation else {})).items():
        said = {"description": why, "content": body}
        answers.setdefault(str(status), said | ({"headers": HEADERS[status]} if status in HEADERS else {}))
