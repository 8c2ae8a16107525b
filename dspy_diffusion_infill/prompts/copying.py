"""Deep copies of what holds something that cannot be copied: locks, connections, tensors of a graph."""

from __future__ import annotations

import copy
from typing import Any

import dspy


def copied_as_far_as_can_be(value: Any, memo: dict[int, Any]) -> Any:
    """Copy deeply; where that fails, copy modules and containers piece by piece, and share what is left.

    DSPy's own `deepcopy` goes no deeper than attributes then: of a list of modules it would copy the list.

    Args:
        value: Not modified.
        memo: As for `copy.deepcopy`: what stands for an object, by its id. Gets what was copied.
    """
    known = len(memo)
    try:
        return copy.deepcopy(value, memo)
    except Exception:  # noqa: BLE001  (torch raises RuntimeError, others what they like)
        while len(memo) > known:  # a copy that was begun must not be taken for one
            memo.popitem()
        return _piecewise(value, memo)


def _piecewise(value: Any, memo: dict[int, Any]) -> Any:
    if isinstance(value, dspy.Module):
        return _module(value, memo)
    if isinstance(value, tuple):
        parts = [copied_as_far_as_can_be(part, memo) for part in value]
        return getattr(value, "_make", type(value))(parts)
    if isinstance(value, list | dict):
        return _container(value, memo)
    return memo.setdefault(id(value), _shallow(value))


def _module(module: dspy.Module, memo: dict[int, Any]) -> dspy.Module:
    copied = memo[id(module)] = type(module).__new__(type(module))
    state: Any = module.__getstate__()
    copied.__setstate__({name: copied_as_far_as_can_be(value, memo) for name, value in state.items()})
    return copied


def _container(container: Any, memo: dict[int, Any]) -> Any:
    copied = memo[id(container)] = copy.copy(container)
    places = list(container) if isinstance(container, dict) else range(len(container))
    for place in places:
        copied[place] = copied_as_far_as_can_be(container[place], memo)
    return copied


def _shallow(value: Any) -> Any:
    """As DSPy copies what cannot be copied deeply."""
    try:
        return copy.copy(value)
    except Exception:  # noqa: BLE001  (as above)
        return value
