"""For mkdocs: the docstrings' `Example:` is laid out as code, as `Examples:` is."""

import re
from typing import Any

import griffe


class Examples(griffe.Extension):
    """Renames the section as griffe reads it."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
