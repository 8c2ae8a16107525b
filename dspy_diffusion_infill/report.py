"""One run as pages to read: HTML that stands alone, and a Markdown summary; beside them, their data.

Pure: no dspy, no torch.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
from collections.abc import Mapping
from difflib import SequenceMatcher
from importlib import metadata
from itertools import chain, groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jinja2

from dspy_diffusion_infill._version import __version__
from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.visible import visible

RESULTS = ("detailed_results", "trial_logs", "candidate_programs")
DISTRIBUTIONS = ("dspy", "torch", "transformers")
"""Whose versions a report names beside our own, as far as they are installed."""
WORD = re.compile(r"(\s*)([\u2e80-\uffdc]|[^\s\u2e80-\uffdc]+|\Z)")
"""Spaces and the word after them; a character of a script without spaces, e.g. Chinese, is a word."""


def write_report(program: object, folder: str | os.PathLike[str]) -> Path:
    """Write `report.html`, `report.md` and `run.json` for a program that `DiffusionInfill` compiled.

    Earlier files are replaced, each whole or not at all. Only their owner may read them.

    Args:
        program: As `compile` returned it. Not modified.
        folder: Made if it is not there.

    Returns:
        The HTML page.

    Raises:
        SettingsError: If the program carries no results; nothing was written.
    """
    run = _run_of(program)
    return _write({"run.json": json.dumps(run, indent=1, default=str), **_pages(run)}, Path(folder))


def write_pages(run: Mapping[str, Any], folder: str | os.PathLike[str]) -> Path:
    """Write `report.html` and `report.md` again, from what `run.json` holds; else as `write_report`.

    Raises:
        SettingsError: If the results lack what a page shows; nothing was written.
    """
    try:
        pages = _pages(run)
    except (jinja2.UndefinedError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise SettingsError(
            f"run.json must be as version {__version__} writes it; no page can be made of it: {error!r}."
        ) from error
    return _write(pages, Path(folder))


def check_files(folder: Path, *names: str) -> None:
    """Refuse names in a folder under which no file can be written.

    Raises:
        SettingsError: If one is a folder.
    """
    if taken := [name for name in names if (folder / name).is_dir()]:
        raise SettingsError(f"{folder / taken[0]} must be a file, or not there; it is a folder.")


def _pages(run: Mapping[str, Any]) -> dict[str, str]:
    return {"report.md": markdown_summary(run), "report.html": html_report(run)}


def _write(pages: Mapping[str, str], folder: Path) -> Path:
    """Replace files, each whole or not at all."""
    check_files(folder, *pages)
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder, prefix=".report-") as fresh:
        for name, page in pages.items():
            file = Path(fresh, name)
            file.touch(mode=0o600)
            file.write_bytes(page.encode(errors="replace"))  # an LM may write half a surrogate pair
        for name in pages:
            os.replace(Path(fresh, name), folder / name)
    return folder / "report.html"


def html_report(run: Mapping[str, Any]) -> str:
    """Lay out a run as one page that needs no script, no other file and no network.

    Args:
        run: What `run.json` holds: the three results of `compile` by name, and `versions`.
    """
    return _render("report.html.jinja", run)


def markdown_summary(run: Mapping[str, Any]) -> str:
    """Say in Markdown what a run changed, what it gained and what it cost.

    Takes what `html_report` takes. Text of the user's stands in code: none of it is taken for markup.
    """
    return _render("report.md.jinja", run)


def _render(template: str, run: Mapping[str, Any]) -> str:
    pages = jinja2.Environment(
        loader=jinja2.PackageLoader("dspy_diffusion_infill", "assets"),
        autoescape=template != "report.md.jinja",
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters |= {"number": _number, "signed": "{:+.4g}".format, "code": _code, "block": _block}
    return pages.get_template(template).render(run, curve=_curve(run), diff=_diff)


def _run_of(program: object) -> dict[str, Any]:
    run = {name: getattr(program, name, None) for name in RESULTS}
    if missing := [name for name, result in run.items() if result is None]:
        raise SettingsError(
            f"program must be one that DiffusionInfill compiled; got a {type(program).__name__} without "
            f"{', '.join(missing)}. Write the report before saving: a program loaded from a file has none."
        )
    return run | {"versions": _versions()}


def _versions() -> dict[str, str]:
    versions = {"dspy-diffusion-infill": __version__, "python": platform.python_version()}
    for name in DISTRIBUTIONS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def _shown(value: object) -> object:
    """What a template writes; markup was made of what is visible already."""
    return value if hasattr(value, "__html__") else visible(str(value))


def _number(value: float | None) -> str:
    return "not scored" if value is None else f"{value:.4g}"


def _diff(before: str, after: str) -> list[tuple[str, str]]:
    """Cut two texts, at words, into pieces that are the same (equal pairs) or differ, in turn."""
    old, new = WORD.findall(before), WORD.findall(after)
    codes = SequenceMatcher(None, [word for _, word in old], [word for _, word in new], autojunk=False)
    pairs: list[tuple[str, str]] = []
    for kind, a, b, c, d in codes.get_opcodes():
        left, right = list(chain(*old[a:b])), list(chain(*new[c:d]))  # spaces, word, spaces, word, ...
        if kind == "equal":
            pairs += zip(left, right, strict=True)  # the same words; the spaces may differ
        else:
            head = 1 if kind == "replace" else 0  # the spaces before the first word may be the same
            pairs += zip(left[:head], right[:head], strict=True)
            pairs.append(("".join(left[head:]), "".join(right[head:])))
    runs = groupby(filter(any, pairs), key=lambda pair: pair[0] == pair[1])
    return [("".join(left), "".join(right)) for left, right in (zip(*run, strict=True) for _, run in runs)]


def _curve(run: Mapping[str, Any]) -> dict[str, Any] | None:
    """The incumbent's score over metric calls, in a square of 100 by 100 with y downwards."""
    found, trials = run["detailed_results"], run["trial_logs"]
    if found["score_before"] is None:
        return None
    scores = [found["score_before"], *(trial["score"] for trial in trials)]
    low, high = min(scores), max(scores)
    first = trials[0]["spent"] - trials[0]["metric_calls"] if trials else found["metric_calls"]
    calls = [first, *(trial["spent"] for trial in trials)]
    xs = [round(100 * call / found["metric_calls"], 2) for call in calls]
    ys = [round(100 * (high - score) / (high - low), 2) if high > low else 50.0 for score in scores]
    path = f"M{xs[0]} {ys[0]}" + "".join(f"H{x}V{y}" for x, y in zip(xs[1:], ys[1:], strict=True)) + "H100"
    dots = [dot for dot in zip(xs[1:], ys[1:], trials, strict=True) if dot[2]["accepted"]]
    return {"path": path, "dots": dots, "first": calls[0], "low": low, "high": high}


def _code(value: object) -> str:
    text = " ".join(str(value).split())
    return f"{_fence(text, 1)} {text} {_fence(text, 1)}" if "`" in text or not text else f"`{text}`"


def _block(text: str) -> str:
    return f"{_fence(text, 3)}text\n{text}\n{_fence(text, 3)}"


def _fence(text: str, shortest: int) -> str:
    """More backticks than stand together anywhere in the text."""
    return "`" * max(shortest, 1 + max(map(len, re.findall("`+", text)), default=0))
