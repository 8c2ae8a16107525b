"""How well judges agree with people on summaries: SummEval, as in Tables 2 and 4 of arXiv:2604.03677.

    python -m benchmarks.summeval --judge-scores FILE --json FILE
    python -m benchmarks.summeval --judge NAME --infiller NAME --methods baseline infill --json FILE

The first scores judgements on record, the second asks a judge, both by the same code. There are 1,600
summaries (100 articles, 16 systems), each graded by three experts in four dimensions; `overall` is the mean
of the four, since SummEval has no such grade and the paper does not say what it took. A tenth of the
articles (160 records) is for tuning: each seed draws its shots there; the other 1,440 records are judged.
Correlations are over all records first, then within articles; intervals are 95 %, over articles. A reply
without a verdict is unscored: counted, and left out. With --resume FOLDER a run that was cut short goes on
from its journals.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any, cast

import dspy

from benchmarks import DATA
from benchmarks.checks import check_enough, parsed
from benchmarks.report import write_json
from benchmarks.tables import improvement_line, improvements, paper_lines, plain_row, row_lines
from benchmarks.tuning import Tuned, Tuning, add_arguments, lm_of, tuned
from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.judges.adapter import PROTOCOL
from dspy_diffusion_infill.judges.agreement import Judged
from dspy_diffusion_infill.judges.grading import grade
from dspy_diffusion_infill.judges.metrics import Closeness
from dspy_diffusion_infill.judges.prometheus import Judge
from dspy_diffusion_infill.judges.templates import rubric, template
from dspy_diffusion_infill.prompts.program import instructions_of
from dspy_diffusion_infill.search.fingerprint import digest
from dspy_diffusion_infill.search.journal import open_journal

DIMENSIONS = ("coherence", "consistency", "fluency", "relevance")
TARGETS = (*DIMENSIONS, "overall")
JUDGEMENT = ("judge", "doc_id", "system_id", "dimension", "score")
"""What a line of --judge-scores holds."""
SUMMEVAL = DATA / "summeval.jsonl"

Record = Mapping[str, Any]
"""`doc_id`, `system_id`, `source`, `reference`, `system_output`, and `scores` by dimension."""
Key = tuple[str, str]
"""Article and system."""
Results = dict[tuple[str, ...], list[Judged]]
"""Judged records by what judged them (judge, template, method, seed) and by target."""
Spent = dict[tuple[str, ...], dict[str, Any]]
"""By the same, what tuning spent, and why it failed."""


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The records of a file."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def overall(scores: Mapping[str, float | None]) -> float | None:
    """The mean of the four dimensions, if all are there."""
    values = [score for name in DIMENSIONS if (score := scores.get(name)) is not None]
    return fmean(values) if len(values) == len(DIMENSIONS) else None


def people(record: Record) -> dict[str, float]:
    """What people gave, by target."""
    return {**record["scores"], "overall": fmean(record["scores"][name] for name in DIMENSIONS)}


def recorded(records: Sequence[Record], judgements: Sequence[Mapping[str, Any]]) -> Results:
    """Judgements on record beside people's scores, by judge and target.

    Raises:
        SettingsError: If there is none, or one lacks something or is of no such record.
    """
    given: dict[str, dict[Key, dict[str, float | None]]] = {}
    keys = {(record["doc_id"], record["system_id"]) for record in records}
    check_enough("Judgements on record", judgements)
    for row in judgements:
        if missing := [name for name in JUDGEMENT if name not in row]:
            raise SettingsError(f"Every judgement must hold {', '.join(JUDGEMENT)}; got no {missing[0]}.")
        key = row["doc_id"], row["system_id"]
        if key not in keys:
            raise SettingsError(f"Every judgement must be of a record of --data; got one of {' '.join(key)}.")
        given.setdefault(row["judge"], {}).setdefault(key, {})[row["dimension"]] = row["score"]
    found: Results = {}
    for judge, by_key in given.items():
        for record in records:
            scores = by_key.get((record["doc_id"], record["system_id"]))
            if scores is None:
                continue
            for target in TARGETS:
                score = overall(scores) if target == "overall" else scores.get(target)
                judged = Judged(record["doc_id"], people(record)[target], score)
                found.setdefault((judge, "as recorded", "", "", target), []).append(judged)
    return found


def split(records: Sequence[Record]) -> tuple[list[Record], list[Record]]:
    """A tenth of the articles for tuning, the rest to judge: whole articles, in a fixed random order."""
    articles = list(dict.fromkeys(record["doc_id"] for record in records))
    Random("summeval").shuffle(articles)
    place = {article: number for number, article in enumerate(articles)}
    ordered = sorted(records, key=lambda record: place[record["doc_id"]])
    num_dev = sum(place[record["doc_id"]] < len(articles) // 10 for record in records)
    return ordered[:num_dev], ordered[num_dev:]


def example(record: Record, target: str) -> dspy.Example:
    """A record as an example for a judge; its `score` is people's."""
    return dspy.Example(
        response=record["system_output"],
        instruction=f"Summarize the following article.\n\n{record['source']}",
        reference_answer=record["reference"],
        source=record["source"],
        feedback="",
        score=people(record)[target],
    ).with_inputs("response", "instruction", "reference_answer", "source")


def judged_by(options: argparse.Namespace, records: Sequence[Record]) -> tuple[Results, Spent]:
    """Tune the judge by every method and seed, and let each grade the same records."""
    dev, test = split(records)
    check_enough("Records for tuning", dev, options.shots)
    check_enough("Records to judge", test)
    test = test[: options.limit]
    shown = [example(record, options.dimension) for record in test]
    lm = lm_of(options.judge, options.api_base, conversation=options.conversation or "v2", max_tokens=6)
    run = {
        "records": digest([dict(one) for one in shown]),
        "judge": digest([lm.model, lm.kwargs, options.conversation, options.samples]),
    }
    found: Results = {}
    spent: Spent = {}
    with dspy.context(lm=lm), open_journal(options.resume, run, resume=True) as journal:
        for seed in options.seeds:
            shots = [example(one, options.dimension) for one in Random(seed).sample(dev, options.shots)]
            for method, better in judges(options, shots, seed):
                names = options.judge, options.template, method, str(seed), options.dimension
                role = f"{options.template}/{method}/{seed}"
                scores: Sequence[float | None] = [None] * len(shown)
                if better.program is not None:
                    scores = grade(
                        better.program, shown, role=role, num_threads=options.threads, journal=journal
                    )
                spent[names] = better.told
                found[names] = [
                    Judged(record["doc_id"], one.score, score)
                    for record, one, score in zip(test, shown, scores, strict=True)
                ]
    return found, spent


def judges(
    options: argparse.Namespace, shots: Sequence[dspy.Example], seed: int
) -> Iterator[tuple[str, Tuned[Judge]]]:
    """The judge as every method tunes it."""
    judge = Judge(
        None if template(options.template).scale else rubric("summeval-overall"),
        template=options.template,
        conversation=options.conversation,
        samples=options.samples,
        seed=seed,
    )
    tuning = Tuning(
        metric=Closeness(judge),
        infiller=options.infiller,
        proposer=dspy.LM(options.proposer) if options.proposer else None,
        budget=options.budget,
        threads=options.threads,
        folder=options.resume,
        lock=PROTOCOL,
    )
    for method in options.methods:
        with dspy.context(adapter=judge.adapter):
            better = tuned(judge, method, shots, tuning, seed)
        written = better.failed or repr(instructions_of(cast(Judge, better.program))["grade"])
        print(f"{method}, seed {seed}, {better.metric_calls} metric calls: {written}", flush=True)
        yield method, better


def bars(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Record-level Spearman of judges on record, under names such as `gpt4_coherence`.

    Judges whose short names are the same have their whole names: `gpt-4-0314_coherence`.
    """
    kept = [row for row in rows if row["template"] == "as recorded"]
    short = {judge: _short(judge) for judge in dict.fromkeys(row["judge"] for row in kept)}
    taken = Counter(short.values())
    names = {judge: name if taken[name] == 1 else judge for judge, name in short.items()}
    return {f"{names[row['judge']]}_{row['target']}": row["dataset"]["spearman"]["value"] for row in kept}


def _short(judge: str) -> str:
    return "".join(judge.split("-")[:2]).replace(".", "")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=SUMMEVAL, help="summeval.jsonl (%(default)s)")
    parser.add_argument("--judge-scores", type=Path, help="judgements on record, to be scored alone")
    parser.add_argument("--judge", default="embedded", help="'embedded', or a model's name")
    parser.add_argument("--api-base", help="of the vLLM server that holds the judge")
    parser.add_argument(
        "--template", help="in assets/judges.toml ('brief' for the embedded judge, else 'judge')"
    )
    parser.add_argument("--conversation", help="there as well (the template's usual one)")
    parser.add_argument("--samples", type=int, default=1, help="replies a judgement, averaged")
    parser.add_argument("--dimension", choices=TARGETS, default="overall")
    parser.add_argument("--limit", type=int, help="records to judge (all 1,440)")
    parser.add_argument("--resamples", type=int, default=1000, help="bootstrap samples")
    add_arguments(parser)
    options = parsed(parser, arguments)
    options.template = options.template or ("brief" if options.judge == "embedded" else "judge")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Judge, or read judgements; print the tables."""
    options = parse(arguments)
    logging.getLogger("dspy").setLevel(logging.WARNING)
    started = time.monotonic()
    records = read_jsonl(options.data)
    on_record = options.judge_scores is not None
    if on_record:
        found, spent = recorded(records, read_jsonl(options.judge_scores)), Spent()
    else:
        found, spent = judged_by(options, records)
    rows = [
        plain_row(names, judged, options.resamples) | spent.get(names, {}) for names, judged in found.items()
    ]
    gains = improvements(found, options.resamples)
    for line in [*row_lines(rows), *map(improvement_line, gains)]:
        print(line)
    for line in () if on_record else paper_lines():
        print(line)
    if options.json:
        write_json(options.json, rows=[*rows, *gains], bars=bars(rows), seeds=options.seeds, started=started)


if __name__ == "__main__":
    main()
