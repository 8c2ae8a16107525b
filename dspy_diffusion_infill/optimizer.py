"""Program -> instructions -> windows -> canvas -> infill -> candidates -> validation -> best program."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

import dspy
from dspy.teleprompt import Teleprompter

from dspy_diffusion_infill.prompts.canvas import Denoising, Infiller
from dspy_diffusion_infill.prompts.guards import Guard
from dspy_diffusion_infill.prompts.locks import LockSetting, check_locks
from dspy_diffusion_infill.prompts.templates import Template
from dspy_diffusion_infill.prompts.trace_turns import Redact
from dspy_diffusion_infill.prompts.windows import SlidingWindow
from dspy_diffusion_infill.search.base import check_base_arguments, choose_metric, run_base
from dspy_diffusion_infill.search.budget import Budget, Preset
from dspy_diffusion_infill.search.confirmation import confirm
from dspy_diffusion_infill.search.estimate import Estimate
from dspy_diffusion_infill.search.expected import expect
from dspy_diffusion_infill.search.fingerprint import fingerprint
from dspy_diffusion_infill.search.infilling import Search
from dspy_diffusion_infill.search.metrics import Metric
from dspy_diffusion_infill.search.opening import open_session
from dspy_diffusion_infill.search.presets import PAPER
from dspy_diffusion_infill.search.proposals import Proposer
from dspy_diffusion_infill.search.rehearsal import rehearse
from dspy_diffusion_infill.search.review import Review
from dspy_diffusion_infill.search.selection import Selection
from dspy_diffusion_infill.search.session import Callback, Session, told_apart
from dspy_diffusion_infill.search.settings import check_settings, plain_settings
from dspy_diffusion_infill.search.start import INTERRUPTED, STOPPED, Start, find_start
from dspy_diffusion_infill.search.usage import warn_if_uncounted
from dspy_diffusion_infill.serving.connect import connect
from dspy_diffusion_infill.traces import ConditionOn, Trace


class DiffusionInfill(Teleprompter):
    """Rewrite parts of a program's instructions with a masked diffusion LM, and keep what measurably helps.

    A window of the instructions is masked inside the program's own prompt, beside examples with their
    reference outputs; the infiller fills it several times; the fillings compete on the validation examples;
    the winner stays if it beats what was there. Then the next window. Always holds: the returned program
    scores at least as high on the validation examples as what `base` made of the student, and as the student
    (if the budget scored both); text outside accepted windows is the same to the byte; the student, the base,
    the examples and the LMs are not modified.

    Source: prompt infilling (arXiv:2604.03677). Where the paper is silent, ties keep what was there, and
    candidates race (`Selection`); `paper` has its settings alone.

    Args:
        metric: Any DSPy metric, higher is better; None takes the base's.
        base: Any optimizer, run first within the budget; its scores are reused.
        infiller: None for the served model (`DIFFUSION_INFILL_URL`, else http://127.0.0.1:8011); a URL; a
            path or hub id, loaded in this process; "embedded" for the toy model in this package; or any
            `Infiller`.
        masking: Which windows are rewritten, and in which order; or a `Template` with regions to fill.
        denoising: How windows are filled, and how many times. Beside an `Infiller` object, which keeps its
            own settings, the number of candidates alone.
        selection: How candidates are compared, and how many examples a canvas shows.
        budget: "light", "medium" or "heavy" (10, 30 or 80 metric calls per validation example), or a
            `Budget`.
        condition_on: What the infiller is shown beside the prompt: labelled "examples"; "traces", i.e. what
            the program answered and what the metric's feedback, or a log (`compile`), says of it; or "both".
        redact: Takes secrets out of every text of an example or a trace before it reaches the infiller, e.g.
            `traces.hide_secrets`; prompts and demos are shown as they are.
        lock: Text that is never rewritten. "auto": placeholders, field names, backticked names, quoted
            literals, URLs, and what an agent needs (`prompts.locks`, `prompts.protocols`); texts and compiled
            patterns, for all predictors or by predictor name, add to that; None locks nothing.
        guard: Text that is never let in. "auto": what `Guard` says; None lets everything in.
        review: Whether a person lets each winning edit in: True asks at the terminal; or a function of an
            `Edit` that returns a bool. An edit that is turned down is not proposed again.
        seed: Of the fillings and of the order of examples. Equal seeds give equal results, whatever
            `num_threads`.
        num_threads: Program runs at a time; None takes DSPy's setting.
        log_dir: Folder where every score is kept as soon as it is paid for, for its owner's eyes alone. A run
            that was cut short goes on from there (`compile`); a folder of another run is refused.
        callbacks: DSPy callbacks that hear of this run alone; and functions that hear its own events
            (`search.events`), e.g. `search.progress.ShowProgress()`.

    Raises:
        SettingsError: If a setting breaks its rule, or there is no metric.

    Example:
        >>> from dspy.teleprompt import COPRO
        >>> exact = lambda example, prediction, trace=None: example.rating == prediction.rating
        >>> optimizer = DiffusionInfill(base=COPRO(metric=exact, breadth=4, depth=2), budget="medium")
        >>> tuned = optimizer.compile(program, trainset=trainset)  # doctest: +SKIP
    """

    def __init__(
        self,
        metric: Callable[..., Any] | None = None,
        *,
        base: Teleprompter | None = None,
        infiller: str | os.PathLike[str] | Infiller | None = None,
        masking: SlidingWindow | Template = SlidingWindow(),  # noqa: B008  (frozen, as the two below)
        denoising: Denoising = Denoising(),  # noqa: B008
        selection: Selection = Selection(),  # noqa: B008
        budget: Preset | Budget = "light",
        condition_on: ConditionOn = "examples",
        redact: Redact | None = None,
        lock: LockSetting = "auto",
        guard: Literal["auto"] | Guard | None = "auto",
        review: Review = False,
        seed: int = 0,
        num_threads: int | None = None,
        log_dir: str | os.PathLike[str] | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        super().__init__()
        self.metric, self.base, self.infiller = metric, base, infiller
        self.masking, self.denoising, self.selection = masking, denoising, selection
        self.budget: Preset | Budget = budget
        self.condition_on: ConditionOn = condition_on
        self.redact, self.lock = redact, lock
        self.guard: Literal["auto"] | Guard | None = guard
        self.review: Review = review
        self.seed, self.num_threads, self.log_dir = seed, num_threads, log_dir
        self.callbacks, self.listeners = told_apart(callbacks)
        check_base_arguments(self.base, None, None)
        check_settings(vars(self))
        check_locks(self.lock)
        self._metric()

    @classmethod
    def paper(
        cls,
        metric: Callable[..., Any] | None = None,
        *,
        base: Teleprompter | None = None,
        infiller: str | os.PathLike[str] | Infiller | None = None,
        budget: Preset | Budget = "heavy",
        seed: int = 0,
    ) -> DiffusionInfill:
        """Make one with the paper's settings (`search.presets.PAPER`); only budget and ties are ours."""
        return cls(metric, base=base, infiller=infiller, budget=budget, seed=seed, **PAPER)

    # DSPy's signature ends in **kwargs, which would swallow typos
    def compile(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        student: dspy.Module,
        *,
        trainset: list[dspy.Example],
        teacher: dspy.Module | None = None,
        valset: list[dspy.Example] | None = None,
        base_kwargs: Mapping[str, Any] | None = None,
        traces: Sequence[Trace] | None = None,
        resume: bool = True,
    ) -> dspy.Module:
        """Optimize a program's instructions.

        Ctrl-C returns the best program so far. The result carries its `edits`, the accepted windows in order,
        each to be taken back with `revert`; and plain data: `candidate_programs` (every candidate scored in
        full, the best first), `trial_logs` (every window) and `detailed_results` (instructions before and
        after, edits, scores, whether the gain held on examples kept out, spend, why the run ended).

        Args:
            student: Any module with predictors. Not modified.
            trainset: Labelled examples; they condition the infilling. Handed to the base as well.
            teacher: Handed to the base, if it takes one.
            valset: Examples that select; None selects on the trainset.
            base_kwargs: More arguments for the base's `compile`.
            traces: Of a log (`read_traces`); those of this run's own program come by themselves.
            resume: With `log_dir`: go on from the scores there, which count as spent; else begin anew.

        Returns:
            A program of the student's type with the student's LMs.

        Raises:
            SettingsError: If an argument breaks its rule; nothing was spent.
            InfillerUnavailableError: If no infiller answers; nothing was spent.
            CanvasError: If a prompt cannot be laid out for the infiller; nothing was spent.
            MetricError: If the metric raised, or returned no number.
            EvaluationError: If the program failed for a reason that says nothing about its prompt.
        """
        check_base_arguments(self.base, teacher, base_kwargs)
        session = open_session(vars(self), self._metric(), student, trainset, valset, traces)
        task, infiller = session.task, self._connect(student)
        session.announce(self.base, infiller, self._expected(session, infiller))
        more = {"base": self.base, "base_kwargs": dict(base_kwargs or {}), "teacher": teacher}
        settings, heard_by = self.get_params() | more, [*self.callbacks, *self.listeners]
        marks = fingerprint(task, metric=session.metric, infiller=infiller, settings=settings)
        with session.recorded(self.log_dir, marks, heard_by, resume=resume) as session:
            given = {"teacher": teacher, "valset": valset and task.valset, "num_threads": self.num_threads}
            asked, meter, journal = base_kwargs or {}, session.meter, session.journal
            found = run_base(self.base, task, optional=given, required=asked, meter=meter, journal=journal)
            start = find_start(found, session, base=self.base, lock=self.lock)
            warn_if_uncounted(session.meter)
            proposer = self._proposer(start, session, infiller)
            search = Search(start, proposer, session, self.masking, self.review)
            reason = search.run()
            confirmation = confirm(search.best, start, session, in_haste=reason in (INTERRUPTED, STOPPED))
        if confirmation.verdict == "refuted":
            search.fall_back()
        run = {"stop_reason": reason, "student_score": start.student_score, "settings": self.get_params()}
        base = {"base_stopped": found.stopped, "base_error": found.error}
        return search.tuned(run | base | {"confirmation": asdict(confirmation)})

    def estimate(
        self,
        student: dspy.Module,
        *,
        trainset: list[dspy.Example],
        teacher: dspy.Module | None = None,
        valset: list[dspy.Example] | None = None,
        base_kwargs: Mapping[str, Any] | None = None,
        traces: Sequence[Trace] | None = None,
    ) -> Estimate:
        """Say what `compile` may cost, without calling an LM; the infiller is asked for its tokens alone.

        Takes what `compile` takes, but for `resume`, and raises what it raises before anything is spent.
        """
        check_base_arguments(self.base, teacher, base_kwargs)
        session = open_session(vars(self), self._metric(), student, trainset, valset, traces)
        return self._expected(session, self._connect(student))

    def get_params(self) -> dict[str, Any]:
        """The settings, as plain data that a tracker can log."""
        left_out = ("callbacks", "listeners", "log_dir")
        settings = {name: value for name, value in vars(self).items() if name not in left_out}
        return plain_settings(settings | {"metric": self._metric().function})

    def _metric(self) -> Metric:
        return choose_metric(self.metric, self.base)

    def _connect(self, student: dspy.Module) -> Infiller:
        return rehearse(vars(self), student, connect(self.infiller, self.denoising))

    def _expected(self, session: Session, infiller: Infiller) -> Estimate:
        given = {"masking": self.masking, "lock": self.lock, "num_candidates": self.denoising.num_candidates}
        return expect(session, infiller, has_base=self.base is not None, **given)

    def _proposer(self, start: Start, session: Session, infiller: Infiller) -> Proposer:
        return Proposer(
            start,
            session,
            infiller,
            masking=self.masking,
            lock=self.lock,
            guard=Guard() if isinstance(self.guard, str) else self.guard,
            num_candidates=self.denoising.num_candidates,
            redact=self.redact,
            seed=self.seed,
        )
