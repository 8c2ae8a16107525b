"""The program that `diffusion-infill optimize` works on, its optimizer and its LM, from their names."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

import dspy
from dspy.teleprompt import Teleprompter

from dspy_diffusion_infill.commands.objects import find_object
from dspy_diffusion_infill.errors import SettingsError


def find_program(place: str) -> tuple[dspy.Module, bool]:
    """A program, and whether it had to be made.

    Args:
        place: `module:object` of a program, or of a class or function that makes one without arguments.

    Raises:
        SettingsError: If there is none.
    """
    found = find_object(place, option="program")
    if isinstance(found, dspy.Module):
        return found, False
    made = _call(found, place) if callable(found) else found
    if not isinstance(made, dspy.Module):
        raise SettingsError(
            f"program must be a dspy.Module, or a class or function that makes one; {place} is {made!r}."
        )
    return made, True


def find_base(place: str | None, metric: Any) -> Teleprompter | None:
    """An optimizer to run first; a class, such as `dspy:COPRO`, is made with the metric and its own defaults.

    Raises:
        SettingsError: If there is none, or the class wants more than a metric.
    """
    if place is None:
        return None
    found = find_object(place, option="base")
    if isinstance(found, type) and issubclass(found, Teleprompter):
        found = _call(found, place, metric=metric)
    if not isinstance(found, Teleprompter):
        raise SettingsError(f"base must be an optimizer of DSPy, or a class of them; {place} is {found!r}.")
    return found


@contextlib.contextmanager
def asked(program: dspy.Module, lm: str | None, api_base: str | None) -> Iterator[str]:
    """Let a program ask an LM, and say its name.

    Args:
        program: Whose LMs are checked.
        lm: Any name for `dspy.LM`; None for what the program, or its module, has set.
        api_base: Of the server that has it.

    Raises:
        SettingsError: If a predictor would have no LM.
    """
    if api_base is not None and lm is None:
        raise SettingsError(f"lm must be named for a server; got --api-base {api_base} alone.")
    given: dict[str, Any] = {"api_base": api_base} if api_base else {}
    with dspy.context(lm=dspy.LM(lm, **given)) if lm else contextlib.nullcontext():
        lms = [predictor.lm or dspy.settings.lm for _, predictor in program.named_predictors()]
        if None in lms:
            raise SettingsError(
                "lm must be named, with --lm openai/gpt-5.5-mini for example, or set by the program's module "
                "with dspy.configure(lm=...); got neither."
            )
        yield ", ".join(dict.fromkeys(str(one.model) for one in lms))


def loading(program: dspy.Module, place: str, *, made: bool, file: str) -> list[str]:
    """The lines of Python that load a tuned program; two, or three if it has to be made.

    Args:
        program: As it was before.
        place: `module:object`, as `find_program` takes it.
        made: Whether that makes the program.
        file: Where the tuned program is.

    Example:
        >>> loading(dspy.Predict("a -> b"), "qa:program", made=False, file="tuned/program.json")
        ['from qa import program', "program.load('tuned/program.json')"]
    """
    module, _, path = place.partition(":")
    lines = [f"from {module} import {path.partition('.')[0]}", *([f"program = {path}()"] if made else [])]
    # DSPy loads an LM that is part of a program, its class and server, from a file that is trusted alone
    pinned = any(predictor.lm is not None for _, predictor in program.named_predictors())
    trusted = pinned and "allow_unsafe_lm_state" in inspect.signature(program.load).parameters
    more = ", allow_unsafe_lm_state=True" if trusted else ""
    return [*lines, f"{'program' if made else path}.load({file!r}{more})"]


def _call(found: Any, place: str, **arguments: Any) -> Any:
    try:
        return found(**arguments)
    except (Exception, SystemExit) as error:  # the code is the user's
        given = f" from {', '.join(arguments)} alone" if arguments else " without arguments"
        raise SettingsError(
            f"{place} must make what is wanted{given}; it raises {type(error).__name__}: {error}. Make it in "
            "a module of yours, and name that."
        ) from error
