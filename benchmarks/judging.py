"""What benchmarks of judges share: who judges, and how a judge is tuned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import dspy
from dspy.teleprompt import COPRO, GEPA, Teleprompter

from benchmarks.tasks import RandomInfiller
from dspy_diffusion_infill.demo import task_lm
from dspy_diffusion_infill.engine.infiller import DiffusionInfiller
from dspy_diffusion_infill.engine.model import load
from dspy_diffusion_infill.errors import EvaluationError
from dspy_diffusion_infill.judges.adapter import PROTOCOL
from dspy_diffusion_infill.judges.metrics import Closeness
from dspy_diffusion_infill.judges.prometheus import Judge, judge_lm
from dspy_diffusion_infill.optimizer import DiffusionInfill
from dspy_diffusion_infill.prompts.canvas import Infiller
from dspy_diffusion_infill.search.base import run_base
from dspy_diffusion_infill.search.budget import CALLS_PER_EXAMPLE, Budget, Meter, Preset
from dspy_diffusion_infill.search.task import make_task

METHODS = ("baseline", "infill", "random", "copro", "copro-long", "copro+infill", "gepa", "gepa+infill")
"""`random` fills windows with random tokens: the same search without a model. With `+infill` the base may use
half of the budget, as it may alone; `copro-long` may use all of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """How judges are tuned, the same for every method."""

    infiller: str | Infiller
    proposer: dspy.BaseLM | None
    """Writes whole prompts for COPRO and GEPA; None for the judge itself."""
    budget: Preset
    threads: int
    folder: Path | None
    """Holds a journal for each method and seed."""


def judge_of(name: str, api_base: str | None, conversation: str | None) -> dspy.BaseLM:
    """The LM that judges: "embedded", a model on a vLLM server, or any `dspy.LM` name."""
    if name == "embedded":
        return task_lm(None)
    return judge_lm(name, api_base=api_base, conversation=conversation or "v2") if api_base else dspy.LM(name)


def tuned(judge: Judge, method: str, shots: Sequence[dspy.Example], tuning: Tuning, seed: int) -> Judge:
    """Tune a judge on examples with people's scores by one of `METHODS`."""
    if method == "baseline":
        return judge
    name, _, infilled = method.partition("+")
    metric = Closeness(judge)
    base = _base(name, metric, tuning, seed)
    calls = CALLS_PER_EXAMPLE[tuning.budget] * len(shots)
    if base is not None and not infilled:
        budget = Budget(metric_calls=calls if name == "copro-long" else calls // 2, base_share=1.0)
        return _run_alone(base, judge, shots, budget, tuning.threads)
    optimizer = DiffusionInfill(
        metric,
        base=base,
        infiller=_random(tuning.infiller) if method == "random" else tuning.infiller,
        lock=PROTOCOL,
        budget=Budget(metric_calls=calls),
        seed=seed,
        num_threads=tuning.threads,
        log_dir=tuning.folder and tuning.folder / f"{method}-{seed}",
    )
    return cast(Judge, optimizer.compile(judge, trainset=list(shots)))


def _base(name: str, metric: Closeness, tuning: Tuning, seed: int) -> Teleprompter | None:
    if name in ("copro", "copro-long"):
        depth = 6 if name == "copro-long" else 3
        return COPRO(prompt_model=tuning.proposer, metric=metric, breadth=10, depth=depth)
    if name == "gepa":
        reflection = tuning.proposer or dspy.settings.lm
        return GEPA(metric=metric.explained, reflection_lm=reflection, auto=tuning.budget, seed=seed)
    return None


def _run_alone(
    base: Teleprompter, judge: Judge, shots: Sequence[dspy.Example], budget: Budget, threads: int
) -> Judge:
    task = make_task(judge, shots, None)
    found = run_base(base, task, optional={"num_threads": threads}, required={}, meter=Meter(budget))
    if found.error is not None:
        raise EvaluationError(f"{type(base).__name__} failed: {found.error}")
    return cast(Judge, found.program)


def _random(infiller: str) -> Infiller:
    return cast(Infiller, RandomInfiller(DiffusionInfiller(load(infiller))))
