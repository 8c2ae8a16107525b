"""Result files -> one page of tables and figures: every number with its command, commit and hardware.

    python -m benchmarks.results RESULTS --output docs/results.md

RESULTS is a folder of the files that benchmarks write with --json. Each becomes a section: what was run,
where, its rows as they were printed, and a figure where the rows can be drawn (agreement with people as bars
with their intervals, accuracy against the length of the prompt as points). Figures go beside the page, in
`figures`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

MAX_TEXT = 60
"""Characters of a text that a cell shows."""

Row = Mapping[str, Any]


def cells(row: Row, before: str = "") -> dict[str, str]:
    """A row as columns of text; what is nested has names of several words, an estimate its interval.

    Example:
        >>> cells({"n": 3, "dataset": {"pearson": {"value": 0.5, "low": 0.25, "high": 0.75}}, "f1": None})
        {'n': '3', 'dataset pearson': '0.500 [0.250, 0.750]', 'f1': '-'}
    """
    found: dict[str, str] = {}
    for name, value in row.items():
        if isinstance(value, Mapping) and value.keys() != {"value", "low", "high"}:
            found |= cells(value, f"{before}{name} ")
        else:
            found[before + name] = _shown(value)
    return found


def table(rows: Sequence[Row]) -> list[str]:
    """Rows as a Markdown table; a column for everything that any row has."""
    shown = [cells(row) for row in rows]
    columns = list(dict.fromkeys(name for row in shown for name in row))
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return [*lines, *("| " + " | ".join(row.get(name, "") for name in columns) + " |" for row in shown)]


def section(name: str, result: Mapping[str, Any], figure: str | None) -> Iterator[str]:
    """One result file as Markdown."""
    meta = result["meta"]
    hardware = ", ".join(f"{key} {value}" for key, value in meta["hardware"].items())
    versions = ", ".join(f"{key} {value}" for key, value in meta["versions"].items())
    yield from ("", f"## {name}", "", f"`{meta['command']}`", "")
    yield f"Commit {meta['commit']}, {meta['date']}, {meta['seconds']} s; {hardware}; {versions}."
    yield from ("", *table(result["rows"]))
    if result["bars"]:
        yield from ("", *table([{"bar": bar, "value": value} for bar, value in result["bars"].items()]))
    if figure:
        yield from ("", f"![{name}]({figure})")


def drawing(rows: Sequence[Row]) -> Figure | None:
    """What rows show, if they can be drawn."""
    agreeing = [row for row in rows if _estimate(row).get("value") is not None]
    solving = [row for row in rows if row.get("words") and row.get("accuracy") is not None]
    if not agreeing and not solving:
        return None
    figure = Figure(figsize=(7, 1 + 0.4 * max(len(agreeing), 6)), layout="constrained")
    axes = figure.subplots()
    if agreeing:
        _draw_agreement(axes, agreeing)
    else:
        _draw_lengths(axes, solving)
    return figure


def write_page(folder: Path, page: Path) -> None:
    """Write the page and its figures.

    Args:
        folder: Holds result files; they come in order of their names.
        page: Markdown file; its folder is made.
    """
    lines = ["# Results", "", f"Made from `{folder}` by `python -m benchmarks.results`; not written by hand."]
    (page.parent / "figures").mkdir(parents=True, exist_ok=True)
    for file in sorted(folder.glob("*.json")):
        result = json.loads(file.read_text(encoding="utf-8"))
        drawn = drawing(result["rows"])
        if drawn is not None:
            drawn.savefig(page.parent / "figures" / f"{file.stem}.svg", metadata={"Date": None})
        lines += section(file.stem, result, f"figures/{file.stem}.svg" if drawn is not None else None)
    page.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{_shown(value['value'])} [{_shown(value['low'])}, {_shown(value['high'])}]"
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3f}"
    text = " ".join(str(value).split()).replace("|", "\\|")
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 3]}..."


def _estimate(row: Row) -> Mapping[str, float | None]:
    """Record-level Spearman, if the row has it."""
    return row.get("dataset", {}).get("spearman", {})


def _draw_agreement(axes: Any, rows: Sequence[Row]) -> None:
    names = [
        " ".join(filter(None, (row["judge"], row["method"], row["seed"], row["target"]))) for row in rows
    ]
    found = [_estimate(row) for row in rows]
    values = [each["value"] for each in found]
    axes.barh(names, values, xerr=list(zip(*map(_reach, found), strict=True)), color="0.7")
    axes.invert_yaxis()
    axes.set_xlabel("Spearman with people, 95 % intervals over documents")


def _reach(estimate: Mapping[str, Any]) -> tuple[float, float]:
    """How far the interval reaches below and above the value; not at all if there is none.

    A value may lie outside the percentiles of its own bootstrap samples.
    """
    value, low, high = (estimate[name] for name in ("value", "low", "high"))
    return (0, 0) if low is None or high is None else (max(0, value - low), max(0, high - value))


def _draw_lengths(axes: Any, rows: Sequence[Row]) -> None:
    for row in rows:
        axes.plot(row["words"], row["accuracy"], "o", color="0.3")
        axes.annotate(f"{row['method']} {row['seed']}", (row["words"], row["accuracy"]))
    axes.set_xlabel("words of the prompt")
    axes.set_ylabel("accuracy")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, help="folder of files written with --json")
    parser.add_argument("--output", type=Path, default=Path("docs/results.md"), help="%(default)s")
    options = parser.parse_args(arguments)
    if not any(options.results.glob("*.json")):
        parser.error(
            f"results must be a folder that holds result files; got {options.results}. Name another one."
        )
    write_page(options.results, options.output)
    print(f"{options.output}: {len(list(options.results.glob('*.json')))} results")


if __name__ == "__main__":
    main()
