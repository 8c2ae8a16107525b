"""How likely judges' prompts are to a diffusion LM: SummEval, as in Table 3b of arXiv:2604.03677.

    python -m benchmarks.perplexity --data FILE --models PUBLIC RO FS FS+RO --json FILE

Each record is laid out in a judge's template; the tokens of that prompt are masked at random and scored given
the others. The paper does not say which tokens it scores, nor how often it draws; here all tokens of the
prompt are scored (--scored reply: the reply that gives people's score, after the prompt), --samples times.
`log_linear` is the paper's estimator (App. B), `exact_count` has the same expectation and varies less. Each
record is masked by draws of its own, the same for every model: at 32 of them the nats of a record have, by
`log_linear`, a standard error of about .35 of their size, which 1,600 records bring to a hundredth.
Perplexity is exp(nats / tokens) over all records; intervals are 95 %, over articles, and count that error
in. A record that is longer than a model's context is left out, and counted; --words cuts articles.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, get_args

import numpy as np

from benchmarks.checks import check_enough, parsed
from benchmarks.report import write_json
from benchmarks.summeval import SUMMEVAL, Record, people, read_jsonl
from dspy_diffusion_infill.engine.checkpoint import find_folder
from dspy_diffusion_infill.engine.likelihood import (
    Estimate,
    Estimator,
    Target,
    estimate_nelbo,
    response_target,
)
from dspy_diffusion_infill.engine.model import TextModel, load
from dspy_diffusion_infill.errors import ModelError, SettingsError
from dspy_diffusion_infill.judges.parse import write_reply
from dspy_diffusion_infill.judges.templates import JudgeTemplate, rubric, template
from dspy_diffusion_infill.prompts.canvas import Message

TEMPLATES = ("judge", "c-gen")
PAPER = {"Public": (11.49, 9.18), "RO": (13.13, 9.82), "FS": (5.10, 12.10), "FS+RO": (4.92, 11.63)}
"""Diffusion perplexity of LLaDA 8B in the templates above, as the paper's Table 3b prints it."""


def prompt(record: Record, told: JudgeTemplate, words: int | None) -> str:
    """A record as a judge is shown it."""
    source = " ".join(record["source"].split()[:words])
    values = {
        "source": source,
        "instruction": f"Summarize the following article.\n\n{source}",
        "response": record["system_output"],
        "reference_answer": record["reference"],
    }
    return told.page(told.text, {name: values[name] for name in told.fields})


def target(model: TextModel, record: Record, told: JudgeTemplate, options: argparse.Namespace) -> Target:
    """The tokens of the prompt, or those of the reply after it, in the model's chat format."""
    asking = Message.text("user", prompt(record, told, options.words))
    if options.scored == "reply":
        reply = write_reply("", round(people(record)["overall"], 2), told.form)
        return response_target(model.vocabulary, [asking], reply)
    layout = model.vocabulary.lay_out([asking])
    return Target(layout.ids, layout.contents[-1])


def measured(model: TextModel, name: str, kind: str, options: argparse.Namespace) -> dict[str, Any]:
    """One template's row: perplexity over all records that fit, with an interval over articles."""
    records = read_jsonl(options.data)
    check_enough("Records", records)
    records = Random("perplexity").sample(records, min(options.limit or len(records), len(records)))
    told = template(kind).with_rubric(rubric("summeval-overall"))
    targets = [target(model, record, told, options) for record in records]
    fitting = [number for number, each in enumerate(targets) if len(each.ids) <= model.context_length]
    row = {
        "model": name,
        "template": kind,
        "scored": options.scored,
        "estimator": options.estimator,
        "n": len(fitting),
        "left_out": len(targets) - len(fitting),
    }
    if not fitting:
        return {**row, "perplexity": None, "low": None, "high": None}
    sums: dict[str, np.ndarray] = {}
    for number in fitting:
        article, one = records[number]["doc_id"], estimated(model, targets[number], number, options)
        sums[article] = sums.get(article, np.zeros(2)) + np.array([one.nelbo, one.num_tokens])
    return {**row, **interval(np.array(list(sums.values())), options.resamples)}


def estimated(model: TextModel, each: Target, number: int, options: argparse.Namespace) -> Estimate:
    """One record, by draws of its own: draws shared by all records would err alike in all of them."""
    (found,) = estimate_nelbo(
        model,
        [each],
        num_samples=options.samples,
        estimator=options.estimator,
        seed=Random(f"{options.seed}/{number}").getrandbits(32),
    )
    return found


def interval(sums: np.ndarray, resamples: int) -> dict[str, float]:
    """Perplexity of nats and tokens by article, and where 95 % of resampled articles put it.

    Example:
        >>> round(interval(np.array([[2 * math.log(8), 2], [math.log(8), 1]]), 10)["high"], 6)
        8.0
    """
    random = np.random.default_rng(0)
    draws = [sums[random.integers(len(sums), size=len(sums))].sum(0) for _ in range(resamples)]
    low, high = np.percentile([nats / tokens for nats, tokens in draws], [2.5, 97.5])
    nats, tokens = sums.sum(0)
    return {"perplexity": math.exp(nats / tokens), "low": math.exp(low), "high": math.exp(high)}


def line(row: Mapping[str, Any]) -> str:
    """One line of the table."""
    numbers = (row["perplexity"], row["low"], row["high"])
    shown = "-" if row["perplexity"] is None else "{:.2f} [{:.2f}, {:.2f}]".format(*numbers)
    return f"{row['model']:<34}{row['template']:<8}{row['n']:>6}{row['left_out']:>9}  {shown}"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=SUMMEVAL, help="summeval.jsonl (%(default)s)")
    parser.add_argument("--models", nargs="+", default=["embedded"], help="'embedded', paths or hub ids")
    parser.add_argument("--templates", nargs="+", default=list(TEMPLATES), help="in assets/judges.toml")
    parser.add_argument("--scored", choices=("prompt", "reply"), default="prompt")
    parser.add_argument("--estimator", choices=get_args(Estimator), default="log_linear")
    parser.add_argument("--samples", type=int, default=32, help="draws a record")
    parser.add_argument("--limit", type=int, help="records (all 1,600)")
    parser.add_argument("--words", type=int, help="of each article that are shown (all)")
    parser.add_argument("--resamples", type=int, default=1000, help="bootstrap samples")
    parser.add_argument("--seed", type=int, default=0, help="of the masks")
    parser.add_argument("--json", type=Path, help="file for the result")
    options = parsed(parser, arguments)
    if options.resamples < 1:
        parser.error(f"--resamples must be at least 1; got {options.resamples}.")
    try:
        for name in options.models:
            find_folder(name)
        for kind in options.templates:
            template(kind)
    except (ModelError, SettingsError) as error:
        parser.error(str(error))
    started, rows = time.monotonic(), []
    print(f"{'':<34}{'':<8}{'n':>6}{'left out':>9}  perplexity")
    for name in options.models:
        model = load(name)
        for kind in options.templates:
            rows.append(measured(model, name, kind, options))
            print(line(rows[-1]), flush=True)
    print("\nThe paper's own numbers, Table 3b (LLaDA 8B; which tokens it scores is not said):")
    for name, (judge, c_gen) in PAPER.items():
        print(f"  {name:<10}judge {judge:>6.2f}   c-gen {c_gen:>6.2f}")
    if options.json:
        write_json(options.json, rows=rows, bars={}, seeds=[options.seed], started=started)


if __name__ == "__main__":
    main()
