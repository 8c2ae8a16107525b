"""What a person sees at /docs: every path, what it takes, and a line to try it. Fetches nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import resources
from typing import Any

import jinja2


def page(document: dict[str, Any], model: str, address: str) -> str:
    """The OpenAPI document as a page.

    Args:
        document: Of the server.
        model: The name it serves, for the examples.
        address: At which it was asked, without a slash at the end; likewise.
    """
    source = resources.files("dspy_diffusion_infill").joinpath("assets/api.html.jinja").read_text("utf-8")
    template = jinja2.Environment(autoescape=True).from_string(source)
    operations = list(_operations(document))
    return template.render(
        title=document["info"]["title"], model=model, address=address, operations=operations
    )


def _operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    schemas = document["components"]["schemas"]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            schema = schemas.get(body.get("schema", {}).get("$ref", "").rpartition("/")[2], {})
            examples = schema.get("examples", ())
            yield {
                "method": method.upper(),
                "path": path,
                "summary": operation["summary"],
                "fields": [_field(schema, name) for name in schema.get("properties", ())],
                "example": json.dumps(examples[0]) if examples else None,
            }


def _field(schema: dict[str, Any], name: str) -> dict[str, Any]:
    field = schema["properties"][name]
    needed = name in schema.get("required", ())
    default = "needed" if needed else json.dumps(field.get("default"))
    return {"name": name, "default": default, "what": field.get("description", "")}
