"""From `module:object` to the object: the modules of the current folder come first."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
import traceback
from typing import Any

from dspy_diffusion_infill.errors import SettingsError


def find_object(place: str, *, option: str) -> Any:
    """Import a module, and take an object out of it.

    Args:
        place: `module:object`, such as `qa:program` or `tasks.qa:Program.metric`.
        option: Names the setting in errors.

    Raises:
        SettingsError: If it does not read so, the module does not import, or has no such object.

    Example:
        >>> find_object("json:JSONDecoder.decode", option="metric").__name__
        'decode'
    """
    name, _, path = place.partition(":")
    if not all(part.isidentifier() for part in f"{name}.{path}".split(".")) or name.endswith(".py"):
        raise SettingsError(
            f"{option} must read module:object, with the module as Python imports it, such as qa:program for "
            f"program in qa.py of this folder; got {place!r}."
        )
    found = _module(name, option)
    for part in path.split("."):
        if not hasattr(found, part):
            close = difflib.get_close_matches(part, dir(found), n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise SettingsError(f"{option} must name an object of {name!r}; it has no {part!r}.{hint}")
        found = getattr(found, part)
    return found


def _module(name: str, option: str) -> Any:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = importlib.import_module(name)
    except (Exception, SystemExit) as error:  # the code is the user's
        raise SettingsError(
            f"{option} must name a module that can be imported; {name!r} raises {type(error).__name__}: "
            f"{error}{_place(error)}."
        ) from error
    _check_own(name.partition(".")[0], option)
    return found


def _check_own(name: str, option: str) -> None:
    """Refuse a module that was loaded from elsewhere before, and hides the one in the current folder."""
    here = os.path.realpath(os.getcwd())
    own = [os.path.join(here, f"{name}.py"), os.path.join(here, name, "__init__.py")]
    there = [file for file in own if os.path.isfile(file)]
    loaded = getattr(sys.modules[name], "__file__", None)
    if there and (loaded is None or os.path.realpath(loaded) not in there):
        raise SettingsError(
            f"{option} must name a module that hides none of Python's; got {name!r}, and another of "
            f"that name is loaded already. Rename {there[0]}."
        )


def _place(error: BaseException) -> str:
    """Where in a file an error was raised; nothing if that was in the import system itself."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    inside = last.filename == importlib.__file__ or last.filename.startswith("<frozen")
    return "" if inside else f" ({last.filename}, line {last.lineno})"
