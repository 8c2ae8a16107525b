"""Data and code as plain data that is the same in every process: what a digest is made of."""

from __future__ import annotations

import dis
import functools
import hashlib
import inspect
import json
import re
from collections.abc import Mapping, Set
from dataclasses import fields, is_dataclass
from types import CellType, CodeType
from typing import Any, cast

import dspy
import pydantic

from dspy_diffusion_infill.search.metrics import name_of

ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
SCALARS = (str, int, float, type(None))


def canonical(value: Any, within: tuple[int, ...] = ()) -> Any:
    """What JSON can hold of a value: of data all there is, of code what it does and what it was made with.

    Args:
        value: Anything; what is plain data stays as it is.
        within: Ids of what holds it, lest it holds itself.

    Example:
        >>> canonical({"a": {2: None}, "b": {"x", "y"}})
        {'a': [[2, None]], 'b': {'set': ['x', 'y']}}
    """
    if isinstance(value, SCALARS):
        return value
    if id(value) in within:
        return "..."
    within = (*within, id(value))
    if isinstance(value, Mapping):
        return _mapping(value, within)
    if isinstance(value, Set):
        return {"set": sorted((canonical(item, within) for item in value), key=_json)}
    if isinstance(value, list | tuple):
        return [canonical(item, within) for item in value]
    return [name_of(value), _code(value, within) if callable(value) else _contents(value, within)]


def class_code(cls: type) -> dict[str, Any]:
    """The source of a class's functions and its plain attributes, by name."""
    found = {
        name: getattr(value, "__func__", getattr(value, "fget", value)) for name, value in vars(cls).items()
    }
    functions = {name: source(value) for name, value in found.items() if inspect.isfunction(value)}
    return scalars(found) | functions


def scalars(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Of attributes those that are a text, a number, or nothing, and not private."""
    return {
        name: value
        for name, value in attributes.items()
        if isinstance(value, SCALARS) and not name.startswith("_")
    }


def _mapping(value: Mapping[Any, Any], within: tuple[int, ...]) -> Any:
    if all(isinstance(name, str) for name in value):
        return {name: canonical(item, within) for name, item in value.items()}
    return sorted((canonical([*pair], within) for pair in value.items()), key=_json)


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _contents(value: Any, within: tuple[int, ...]) -> Any:
    if isinstance(value, dspy.Example | pydantic.BaseModel):
        return canonical(dict(value), within)
    if is_dataclass(value):
        return canonical({field.name: getattr(value, field.name) for field in fields(value)}, within)
    text = ADDRESS.sub("", str(value))
    if hasattr(value, "tolist"):  # an array, whose text leaves numbers out
        return canonical(value.tolist(), within)
    if hasattr(value, "tobytes"):  # an image
        return [text, hashlib.sha256(value.tobytes()).hexdigest()]
    if type(value).__repr__ is object.__repr__:
        return canonical(getattr(value, "__dict__", {}), within)
    return text


def _code(value: Any, within: tuple[int, ...]) -> Any:
    if isinstance(value, functools.partial):
        return canonical([value.func, value.args, value.keywords], within)
    if inspect.ismethod(value):
        own = value.__self__
        held = own if inspect.isclass(own) else [class_code(type(own)), _state(own)]
        return canonical([value.__func__, held], within)
    if inspect.isclass(value):
        return class_code(value)
    if inspect.isroutine(value):
        defaults = [getattr(value, name, None) for name in ("__defaults__", "__kwdefaults__")]
        return [source(value), canonical([defaults, closure(value)], within)]
    return [class_code(type(value)), canonical(_state(value), within)]


def _state(value: Any) -> dict[str, Any]:
    """What an object was made with: plain attributes named as in its constructor, and `identity`.

    Others may count or log, and change from run to run, as those do that its own methods write. Of a module
    they are settings; LMs, locks and the like are left out.
    """
    if isinstance(value, dspy.Module):
        state, wanted = cast(dict[str, Any], value.__getstate__()), None
    else:
        state = getattr(value, "__dict__", {})
        wanted = {"identity", *inspect.signature(type(value)).parameters} - _written(type(value))
    return {
        name: item for name, item in state.items() if _is_plain(item) and (wanted is None or name in wanted)
    }


def _written(cls: type) -> set[str]:
    """The attributes that methods write, but for those that make an object."""
    methods = [
        getattr(value, "__code__", None)
        for one in cls.__mro__
        for name, value in vars(one).items()
        if name not in ("__init__", "__post_init__")
    ]
    steps = [step for code in methods if code for step in dis.get_instructions(code)]
    return {step.argval for step in steps if step.opname == "STORE_ATTR"}


def closure(function: Any) -> list[Any]:
    """What a function was made with; not what it counts in: names that it binds, lists, dicts and sets."""
    cells, code = getattr(function, "__closure__", None) or (), getattr(function, "__code__", None)
    bound = (
        {step.argval for step in dis.get_instructions(code) if step.opname == "STORE_DEREF"} if code else ()
    )
    named = zip(code.co_freevars, cells, strict=True) if code else ()
    held = [cell.cell_contents for name, cell in named if name not in bound and cell != CellType()]
    return [value for value in held if _is_plain(value) and not isinstance(value, list | dict | set)]


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return _is_plain([*value, *value.values()])
    if isinstance(value, list | tuple | Set):
        return all(map(_is_plain, value))
    return isinstance(value, (*SCALARS, functools.partial)) or inspect.isroutine(value)


def source(function: Any) -> Any:
    """The text of a function; where Python does not know it, what it was compiled to."""
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        return _compiled(getattr(function, "__code__", None))


def _compiled(code: CodeType | None) -> Any:
    if code is None:
        return ""
    values = [_compiled(one) if isinstance(one, CodeType) else canonical(one) for one in code.co_consts]
    return [code.co_code.hex(), values, list(code.co_names)]
