"""What BM25 alone finds for HoVer claims: the floor under every multi-hop program.

    python -m benchmarks.retrieval --data DIR --json FILE

The claim itself is the query. Of the dev split (train was not to be had), the claims whose gold passages are
all in the corpus. That corpus is closed: gold passages of all claims, and distractors; retrieval from it is
far easier than from all of Wikipedia, and these numbers compare with no published ones. `all gold`: share of
claims whose every gold passage is among the first k; `recall`: mean share of a claim's gold passages there.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.checks import check_enough, parsed
from benchmarks.passages import Passages, read_passages
from benchmarks.report import write_json

DEPTHS = (7, 21)
"""One hop of seven passages, and three."""

Claim = Mapping[str, Any]
"""`claim`, `supporting_facts` (title and sentence), `num_hops`, `wiki_covered`."""


def read_claims(folder: Path) -> list[Claim]:
    """The claims of the dev split whose gold passages are all in the corpus."""
    with (folder / "hover_dev.jsonl").open(encoding="utf-8") as lines:
        return [claim for claim in map(json.loads, lines) if claim["wiki_covered"]]


def gold(claim: Claim) -> set[str]:
    """Titles of a claim's gold passages."""
    return {title for title, _ in claim["supporting_facts"]}


def run(claims: Sequence[Claim], passages: Passages, corpus: str) -> list[dict[str, Any]]:
    """A row for each number of hops and each depth."""
    found = passages.search([claim["claim"] for claim in claims], max(DEPTHS))
    pairs = list(zip(claims, found, strict=True))
    rows = []
    for hops in sorted({claim["num_hops"] for claim in claims}):
        own = [(gold(claim), titles) for claim, titles in pairs if claim["num_hops"] == hops]
        rows += [{"corpus": corpus, "hops": hops, "k": k, "n": len(own), **scores(own, k)} for k in DEPTHS]
    return rows


def scores(pairs: Iterable[tuple[set[str], Sequence[str]]], k: int) -> dict[str, float]:
    """All gold, and recall, of the first k titles.

    Example:
        >>> scores([({"a", "b"}, ["a", "b"]), ({"a", "b"}, ["c", "b"])], k=2)
        {'all_gold': 0.5, 'recall': 0.75}
    """
    shares = [len(wanted & set(titles[:k])) / len(wanted) for wanted, titles in pairs]
    return {"all_gold": fmean(share == 1 for share in shares), "recall": fmean(shares)}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="folder of hover_dev.jsonl and hover_wiki*.jsonl"
    )
    parser.add_argument("--json", type=Path, help="file for the result")
    options = parsed(parser, arguments)
    started = time.monotonic()
    claims, rows = read_claims(options.data), []
    check_enough("Claims", claims)
    for distractors in (False, True):
        passages = read_passages(options.data, distractors=distractors)
        rows += run(claims, passages, f"{len(passages.titles)} passages")
    print(f"{'corpus':<18}{'hops':>5}{'k':>4}{'claims':>8}{'all gold':>10}{'recall':>9}")
    for row in rows:
        counts = f"{row['corpus']:<18}{row['hops']:>5}{row['k']:>4}{row['n']:>8}"
        print(f"{counts}{row['all_gold']:>10.3f}{row['recall']:>9.3f}")
    if options.json:
        write_json(options.json, rows=rows, bars=bars(rows), seeds=[], started=started)


def bars(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Named by measure, hops and depth, on the larger corpus (the last rows)."""
    return {
        f"bm25_{measure}_{row['hops']}hop_at{row['k']}": row[measure]
        for row in rows
        for measure in ("all_gold", "recall")
    }


if __name__ == "__main__":
    main()
