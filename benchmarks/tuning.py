"""What benchmarks share: which LM is asked, and how a program is tuned by each method within one budget."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import dspy
from dspy.teleprompt import COPRO, GEPA, Teleprompter

from benchmarks.tasks import RandomInfiller
from dspy_diffusion_infill.engine.infiller import DiffusionInfiller
from dspy_diffusion_infill.engine.model import load
from dspy_diffusion_infill.errors import EvaluationError
from dspy_diffusion_infill.judges.prometheus import judge_lm
from dspy_diffusion_infill.optimizer import DiffusionInfill
from dspy_diffusion_infill.prompts.canvas import Infiller
from dspy_diffusion_infill.prompts.locks import LockSetting
from dspy_diffusion_infill.prompts.templates import Template
from dspy_diffusion_infill.prompts.windows import SlidingWindow
from dspy_diffusion_infill.search.base import run_base
from dspy_diffusion_infill.search.budget import CALLS_PER_EXAMPLE, Budget, Meter, Preset
from dspy_diffusion_infill.search.task import make_task

METHODS = ("baseline", "infill", "random", "copro", "copro-long", "copro+infill", "gepa", "gepa+infill")
"""`random` fills windows with random tokens: the same search without a model. With `+infill` the base may use
half of the budget, as it may alone; `copro-long` may use all of it."""

Program = TypeVar("Program", bound=dspy.Module)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """How programs are tuned, the same for every method."""

    metric: Callable[..., Any]
    """For GEPA, one that takes five arguments and gives feedback."""
    infiller: str | Infiller
    proposer: dspy.BaseLM | None
    """Writes whole prompts for COPRO and GEPA; None for the program's own LM."""
    budget: Preset
    threads: int
    folder: Path | None
    """Holds a journal for each method and seed."""
    lock: LockSetting = "auto"
    masking: SlidingWindow | Template = SlidingWindow()  # noqa: RUF009  (frozen)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What every benchmark that tunes programs can be told."""
    parser.add_argument("--infiller", default="embedded", help="'embedded', a path, hub id or URL")
    parser.add_argument("--proposer", help="LM that writes for COPRO and GEPA (the LM that is asked)")
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
        conversation: Whose published decoding a judge on that server uses.
        max_tokens: Of an answer; a judge keeps what was published.
    """
    if name == "embedded":
        from dspy_diffusion_infill import DiffusionLM

        return DiffusionLM("embedded", max_tokens=max_tokens)
    if api_base and conversation:
        return judge_lm(name, api_base=api_base, conversation=conversation)
    where: dict[str, Any] = {"api_base": api_base} if api_base else {}
    return dspy.LM(f"hosted_vllm/{name}" if api_base else name, max_tokens=max_tokens, **where)


def tuned(program: Program, method: str, shots: Sequence[dspy.Example], tuning: Tuning, seed: int) -> Program:
    """Tune a program on labelled examples by one of `METHODS`. The program is not modified.

    Raises:
        EvaluationError: If a base optimizer failed.
    """
    if method == "baseline":
        return program
    name, _, infilled = method.partition("+")
    base = _base(name, tuning, seed)
    calls = CALLS_PER_EXAMPLE[tuning.budget] * len(shots)
    if base is not None and not infilled:
        budget = Budget(metric_calls=calls if name == "copro-long" else calls // 2, base_share=1.0)
        return _run_alone(base, program, shots, budget, tuning.threads)
    optimizer = DiffusionInfill(
        tuning.metric,
        base=base,
        infiller=_random(tuning.infiller) if method == "random" else tuning.infiller,
        lock=tuning.lock,
        masking=tuning.masking,
        budget=Budget(metric_calls=calls),
        seed=seed,
        num_threads=tuning.threads,
        log_dir=tuning.folder and tuning.folder / f"{method}-{seed}",
    )
    return cast(Program, optimizer.compile(program, trainset=list(shots)))


def _base(name: str, tuning: Tuning, seed: int) -> Teleprompter | None:
    if name in ("copro", "copro-long"):
        depth = 6 if name == "copro-long" else 3
        return COPRO(prompt_model=tuning.proposer, metric=tuning.metric, breadth=10, depth=depth)
    if name == "gepa":
        reflection: Any = tuning.proposer or dspy.settings.lm
        return GEPA(metric=tuning.metric, reflection_lm=reflection, auto=tuning.budget, seed=seed)
    return None


def _run_alone(
    base: Teleprompter, program: Program, shots: Sequence[dspy.Example], budget: Budget, threads: int
) -> Program:
    task = make_task(program, shots, None)
    found = run_base(base, task, optional={"num_threads": threads}, required={}, meter=Meter(budget))
    if found.error is not None:
        raise EvaluationError(f"{type(base).__name__} failed: {found.error}")
    return cast(Program, found.program)


def _random(infiller: str | Infiller) -> Infiller:
    model = DiffusionInfiller(load(infiller)) if isinstance(infiller, str) else infiller
    return cast(Infiller, RandomInfiller(cast(DiffusionInfiller, model)))
