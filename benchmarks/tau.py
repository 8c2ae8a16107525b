"""Customer service with tools, tau-bench: recorded dialogues refine the system prompt of an agent.

    python -m benchmarks.tau --data DIR --json FILE
    python -m benchmarks.tau --data DIR --domain airline --policy --lm LM --judge JUDGE --infiller LLADA

First every recorded dialogue is read, laid out beside the prompt with one window masked, and infilled once,
cut where it does not fit. With --judge the prompt is then refined: the program answers as the agent at the
end of dialogues that succeeded, a judge LM grades its reply beside the recorded one, and all other dialogues
of the domain condition as traces, with their outcome. That is a stand-in for running tau-bench itself, which
needs its simulated users and tools: no number here is a tau-bench score.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import dspy
from dspy.signatures.signature import make_signature

from benchmarks.checks import check_enough, parsed
from benchmarks.measuring import text_of
from benchmarks.report import write_json
from benchmarks.tuning import Tuning, add_arguments, lm_of, tuned
from dspy_diffusion_infill.errors import CanvasError
from dspy_diffusion_infill.judges.metrics import JudgeMetric
from dspy_diffusion_infill.judges.prometheus import Judge
from dspy_diffusion_infill.judges.templates import Rubric
from dspy_diffusion_infill.prompts.canvas import Canvas, Denoising, Infiller
from dspy_diffusion_infill.prompts.compact import CompactAdapter
from dspy_diffusion_infill.prompts.conditioning import Conditioning
from dspy_diffusion_infill.prompts.program import instructions_of
from dspy_diffusion_infill.prompts.render import render_window
from dspy_diffusion_infill.prompts.windows import SlidingWindow
from dspy_diffusion_infill.serving.connect import connect
from dspy_diffusion_infill.trace_formats import read_dialogues
from dspy_diffusion_infill.traces import Trace

PAPER = {"airline": 50, "retail": 46}
"""Best success in percent that a third party lists for arXiv:2602.18449; of which models is not said."""
SHORT = "Help the customer, and keep to the rules of the company."
RUBRIC = Rubric(
    "Does the reply bring the customer's request forward, truthfully and within the rules?",
    {
        1: "It harms: wrong facts, or against the rules.",
        2: "It is beside the point.",
        3: "It helps a little.",
        4: "It helps, with small flaws.",
        5: "It is what a very good agent would say here.",
    },
)


def dialogues(folder: Path, domain: str | None) -> tuple[list[Trace], list[str]]:
    """The recorded dialogues, of one domain if it is named; and why others could not be read."""
    log = read_dialogues(folder / "traces_tau.jsonl")
    with (folder / "traces_tau.jsonl").open(encoding="utf-8") as lines:
        homes = [json.loads(line)["domain"] for line in lines if line.strip()]
    read = [home for n, home in enumerate(homes, start=1) if n not in {one.line for one in log.refused}]
    kept = [trace for trace, home in zip(log.traces, read, strict=True) if domain in (None, home)]
    return kept, [f"line {one.line}: {one.reason}" for one in log.refused]


def agent(folder: Path, *, policy: bool) -> dspy.Predict:
    """An agent that says what comes next; told the airline's recorded policy, or one sentence."""
    text = SHORT
    if policy:
        text = json.loads((folder / "traces_tau_policy.jsonl").read_text(encoding="utf-8"))["policy"]
    return dspy.Predict(make_signature("conversation -> reply", text))


def condition(program: dspy.Predict, traces: Sequence[Trace], infiller: Infiller) -> list[dict[str, Any]]:
    """Fill the first window of the prompt once in sight of each trace; a row for each, refused or not."""
    text = instructions_of(program)["self"]
    window = SlidingWindow(passes=1).windows(text, infiller.offsets(text))[0]
    messages = render_window(program, text, window)
    conditioning = Conditioning(program, [], {}, shots=1, seed=0, condition_on="traces")
    canvases, rows = list[Canvas](), list[dict[str, Any]]()
    for trace in traces:
        try:
            canvas = conditioning.canvas("self", messages, 0, infiller, [trace])
        except CanvasError as error:
            rows.append({"refused": str(error)})
            continue
        if not canvas.context:
            rows.append({"refused": "Not even its ends fit beside the prompt."})
            continue
        rows.append({"tokens": infiller.num_tokens(canvas), "cut": _is_cut(canvas)})
        canvases.append(canvas)
    filled = iter(infiller.infill(canvases, num_candidates=1, seed=0) if canvases else [])
    return [row if "refused" in row else {**row, "filling": next(filled)[0].texts[0]} for row in rows]


def refine(
    program: dspy.Predict, traces: Sequence[Trace], options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Tune the prompt by every method and seed; what each wrote, and its score on what selected it."""
    embedded = options.judge == "embedded"
    judge_lm = lm_of(options.judge, options.judge_api_base, conversation="v2", max_tokens=512)
    judge = Judge(None if embedded else RUBRIC, template="brief" if embedded else "judge", lm=judge_lm)
    reference = None if embedded else "reply"
    metric = JudgeMetric(judge, response="reply", instruction="conversation", reference_answer=reference)
    won = [trace for trace in traces if trace.score == 1.0]
    lm, rows = lm_of(options.lm, options.api_base, max_tokens=16 if options.lm == "embedded" else 512), []
    for seed in options.seeds:
        chosen = Random(seed).sample(won, min(options.shots, len(won)))
        shots = [_example(trace, options.characters) for trace in chosen]
        tuning = Tuning(
            metric=metric,
            infiller=options.infiller,
            proposer=dspy.LM(options.proposer) if options.proposer else None,
            budget=options.budget,
            threads=options.threads,
            folder=options.resume,
            condition_on="traces",
            traces=[trace for trace in traces if not any(trace is one for one in chosen)],
        )
        with dspy.context(lm=lm):
            for method in options.methods:
                better = tuned(program, method, shots, tuning, seed)
                found = vars(better.program) if better.program is not None else {}
                told: dict[str, Any] = found.get("detailed_results", {})
                scores = {name: told.get(name) for name in ("score_before", "score_after")} | better.told
                text = text_of(better.program)
                rows.append({"method": method, "seed": seed, **scores, "instructions": text})
                print(f"{method:<10} seed {seed}  {scores}  {text!r}", flush=True)
    return rows


def _example(trace: Trace, characters: int | None) -> dspy.Example:
    """A dialogue that succeeded, to be answered again; of a long one its end, if the LM reads no more."""
    conversation = trace.inputs["conversation"]
    shown = conversation if characters is None else conversation[-characters:]
    return dspy.Example(conversation=shown, **trace.outputs).with_inputs("conversation")


def _is_cut(canvas: Canvas) -> bool:
    return any(" [...] " in part for turn in canvas.context for part in turn.parts if isinstance(part, str))


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of traces_tau*.jsonl")
    parser.add_argument("--domain", choices=list(PAPER), help="of the dialogues (both)")
    parser.add_argument(
        "--policy", action="store_true", help="start from the airline's policy, ~2,000 tokens"
    )
    parser.add_argument("--limit", type=int, help="dialogues to infill (all)")
    parser.add_argument("--steps", type=int, default=1, help="denoising steps of that one filling")
    parser.add_argument("--lm", default="embedded", help="the agent: 'embedded', or a model's name")
    parser.add_argument("--api-base", help="of the vLLM server that holds it")
    parser.add_argument("--judge", help="refine, graded by this LM: 'embedded' (plumbing), or a model's name")
    parser.add_argument("--judge-api-base", help="of the vLLM server that holds it")
    parser.add_argument(
        "--characters", type=int, help="of a conversation that the agent is shown, its end (all)"
    )
    add_arguments(parser)
    options = parsed(parser, arguments)
    logging.getLogger("dspy").setLevel(logging.WARNING)
    started = time.monotonic()
    traces, refused = dialogues(options.data, options.domain)
    check_enough("Dialogues", traces)
    if options.judge:
        check_enough("Dialogues that succeeded", [trace for trace in traces if trace.score == 1.0])
    program = agent(options.data, policy=options.policy)
    infiller = connect(options.infiller, Denoising(num_candidates=1, steps=options.steps))
    with dspy.context(adapter=CompactAdapter()):
        rows = condition(program, traces[: options.limit], infiller)
        shown = [row for row in rows if "refused" not in row]
        refused += [f"not shown: {row['refused']}" for row in rows if "refused" in row]
        print(f"read {len(traces)}, infilled beside {len(shown)} of {len(rows)}", end=" ")
        print(f"({sum(row['cut'] for row in shown)} cut to {infiller.context_length} tokens)")
        for reason in refused:
            print(reason)
        if options.judge:
            rows += refine(program, traces, options)
    print(f"\nThe paper's best, as a third party lists it (tau-bench itself, models not said): {PAPER} %")
    if options.json:
        bars = {"traces_read": len(traces), "traces_conditioned": len(shown)}
        write_json(options.json, rows=rows, bars=bars, seeds=options.seeds, started=started)


if __name__ == "__main__":
    main()
