"""What of a program is its author's own: classes, and the names that their code uses."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import CodeType

NOT_OWN = ("dspy", "builtins", "abc", "typing")
"""Packages whose classes are the same in every program."""


def own_classes(thing: object) -> list[type]:
    """The classes of an object that are not DSPy's or Python's."""
    return [cls for cls in type(thing).__mro__ if cls.__module__.partition(".")[0] not in NOT_OWN]


def uses_name(thing: object, name: str) -> bool:
    """Whether an object's classes have an attribute of a name, or code that speaks of one.

    Example:
        >>> class Book:
        ...     def __init__(self):
        ...         self.pages = []
        >>> uses_name(Book(), "pages"), uses_name(Book(), "title")
        (True, False)
    """
    return any(
        name in vars(cls) or any(name in code.co_names or name in code.co_consts for code in _codes(cls))
        for cls in own_classes(thing)
    )


def _codes(cls: type) -> Iterator[CodeType]:
    for value in vars(cls).values():
        function = getattr(value, "__func__", getattr(value, "fget", value))
        if inspect.isfunction(function):
            yield from _nested(inspect.unwrap(function).__code__)


def _nested(code: CodeType) -> Iterator[CodeType]:
    """A code and those within it, of lambdas and the like."""
    yield code
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _nested(inner)
