"""What benchmarks share: which LM is asked, and how a program is tuned by each method within one budget."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import dspy
from dspy.teleprompt import COPRO, GEPA, Teleprompter

from benchmarks.tasks import RandomInfiller
from dspy_diffusion_infill.engine.infiller import DiffusionInfiller
from dspy_diffusion_infill.engine.model import load
from dspy_diffusion_infill.judges import templates
from dspy_diffusion_infill.judges.prometheus import judge_lm
from dspy_diffusion_infill.optimizer import DiffusionInfill
from dspy_diffusion_infill.prompts.canvas import Infiller
from dspy_diffusion_infill.prompts.locks import LockSetting
from dspy_diffusion_infill.prompts.templates import Template
from dspy_diffusion_infill.prompts.windows import SlidingWindow
from dspy_diffusion_infill.search.base import run_base
from dspy_diffusion_infill.search.budget import CALLS_PER_EXAMPLE, Budget, Meter, Preset
from dspy_diffusion_infill.search.task import make_task
from dspy_diffusion_infill.traces import ConditionOn, Trace

METHODS = ("baseline", "infill", "random", "copro", "copro+infill", "gepa", "gepa+infill")
"""`random` fills windows with random tokens: the same search without a model. Each may spend the same number
of metric calls in all; with `+infill` the base may use half of them."""
BREADTH, DEPTH = 10, 8
"""Of COPRO: as many instructions as the largest budget can try on every example: the budget ends it."""
WRITING_TOKENS = 2048
"""Of a whole prompt and its frame: an LM that answers in a few tokens gets as many to write one."""

Program = TypeVar("Program", bound=dspy.Module)


@dataclass(frozen=True, slots=True)
class Tuned(Generic[Program]):
    """What a method made of a program."""

    program: Program | None
    """None if the method failed."""
    metric_calls: int = 0
    failed: str | None = None
    """Why."""

    @property
    def told(self) -> dict[str, Any]:
        """For a row: what was spent, and why there is nothing to measure."""
        return {"metric_calls": self.metric_calls, "failed": self.failed}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """How programs are tuned, the same for every method."""

    metric: Callable[..., Any]
    """For GEPA, one that takes five arguments and gives feedback."""
    infiller: str | Infiller
    proposer: dspy.BaseLM | None
    """Writes whole prompts for COPRO and GEPA; None for the LM in force, with room to write."""
    budget: Preset
    threads: int
    folder: Path | None
    """Holds a journal for each method and seed."""
    lock: LockSetting = "auto"
    condition_on: ConditionOn = "examples"
    traces: Sequence[Trace] | None = None
    """Of a log."""
    masking: SlidingWindow | Template = SlidingWindow()  # noqa: RUF009  (frozen)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What every benchmark that tunes programs can be told."""
    parser.add_argument("--infiller", default="embedded", help="'embedded', a path, hub id or URL")
    parser.add_argument("--proposer", help="LM that writes for COPRO and GEPA (the one that is asked)")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["baseline", "infill"])
    parser.add_argument("--budget", choices=tuple(CALLS_PER_EXAMPLE), default="light")
    parser.add_argument("--shots", type=int, default=16)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--resume", type=Path, help="folder of the journals")
    parser.add_argument("--json", type=Path, help="file for the result")


def lm_of(
    name: str, api_base: str | None, *, conversation: str | None = None, max_tokens: int
) -> dspy.BaseLM:
    """The LM that is asked: "embedded", a model on a vLLM server, or any `dspy.LM` name.

    Args:
        name: Of the LM.
        api_base: Of the vLLM server.
        conversation: Of a judge: whose published decoding it uses on that server, and how many tokens a reply
            may have on any other.
        max_tokens: Of an answer of the embedded model or of an LM that is no judge; else what was published.
    """
    if name == "embedded":
        from dspy_diffusion_infill import DiffusionLM

        return DiffusionLM("embedded", max_tokens=max_tokens)
    if conversation:
        if api_base:
            return judge_lm(name, api_base=api_base, conversation=conversation)
        return dspy.LM(name, max_tokens=templates.conversation(conversation).decoding.get("max_tokens"))
    where: dict[str, Any] = {"api_base": api_base} if api_base else {}
    return dspy.LM(f"hosted_vllm/{name}" if api_base else name, max_tokens=max_tokens, **where)


def tuned(
    program: Program, method: str, shots: Sequence[dspy.Example], tuning: Tuning, seed: int
) -> Tuned[Program]:
    """Tune a program on labelled examples by one of `METHODS`. The program is not modified."""
    if method == "baseline":
        return Tuned(program)
    name, _, infilled = method.partition("+")
    base = _base(name, tuning, seed)
    calls = CALLS_PER_EXAMPLE[tuning.budget] * len(shots)
    if base is not None and not infilled:
        return _run_alone(base, program, shots, Budget(metric_calls=calls, base_share=1.0), tuning.threads)
    optimizer = DiffusionInfill(
        tuning.metric,
        base=base,
        infiller=_random(tuning.infiller) if method == "random" else tuning.infiller,
        lock=tuning.lock,
        condition_on=tuning.condition_on,
        masking=tuning.masking,
        budget=Budget(metric_calls=calls),
        seed=seed,
        num_threads=tuning.threads,
        log_dir=tuning.folder and tuning.folder / f"{method}-{seed}",
    )
    found = optimizer.compile(program, trainset=list(shots), traces=tuning.traces)
    told: dict[str, Any] = vars(found)["detailed_results"]
    return _tuned(found, told["metric_calls"], base, told["base_error"])


def _base(name: str, tuning: Tuning, seed: int) -> Teleprompter | None:
    if name == "copro":
        return COPRO(prompt_model=_writer(tuning), metric=tuning.metric, breadth=BREADTH, depth=DEPTH)
    if name == "gepa":
        return GEPA(metric=tuning.metric, reflection_lm=_writer(tuning), auto=tuning.budget, seed=seed)
    return None


def _writer(tuning: Tuning) -> Any:
    return tuning.proposer or dspy.settings.lm.copy(max_tokens=WRITING_TOKENS)


def _run_alone(
    base: Teleprompter, program: Program, shots: Sequence[dspy.Example], budget: Budget, threads: int
) -> Tuned[Program]:
    task, meter = make_task(program, shots, None), Meter(budget)
    found = run_base(base, task, optional={"num_threads": threads}, required={}, meter=meter)
    return _tuned(found.program, meter.spent, base, found.error)


def _tuned(found: dspy.Module, calls: int, base: Teleprompter | None, error: str | None) -> Tuned[Any]:
    failed = error and f"{type(base).__name__} failed: {error}"
    return Tuned(None if failed else found, calls, failed)


def _random(infiller: str | Infiller) -> Infiller:
    model = DiffusionInfiller(load(infiller)) if isinstance(infiller, str) else infiller
    return cast(Infiller, RandomInfiller(cast(DiffusionInfiller, model)))
