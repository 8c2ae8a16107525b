"""What the run of a session may cost: its program, its examples and what its canvases show, put together."""

from __future__ import annotations

from dspy_diffusion_infill.prompts.canvas import Infiller
from dspy_diffusion_infill.prompts.conditioning import needs_traces
from dspy_diffusion_infill.prompts.locks import LockSetting
from dspy_diffusion_infill.prompts.program import instructions_of
from dspy_diffusion_infill.prompts.protocols import program_locks
from dspy_diffusion_infill.prompts.windows import Masking
from dspy_diffusion_infill.search.estimate import Estimate, count_windows, estimate
from dspy_diffusion_infill.search.session import Session


def expect(
    session: Session,
    infiller: Infiller,
    *,
    masking: Masking,
    lock: LockSetting,
    num_candidates: int,
    has_base: bool,
) -> Estimate:
    """Say what a run may cost, without calling an LM.

    Args:
        session: Its task and its settings.
        infiller: Asked for its tokens alone.
        masking: As for `DiffusionInfill`, and so are the others.
        lock: What no window touches.
        num_candidates: Fillings a window.
        has_base: Whether a base runs first.
    """
    student = session.task.student
    locks = program_locks(student, lock)
    start_calls, window_calls = _shown_calls(session, has_base=has_base)
    return estimate(
        session.meter.budget,
        count_windows(instructions_of(student), masking, locks, infiller),
        num_examples=session.selection.repeats * len(session.task.valset),
        num_candidates=num_candidates,
        has_base=has_base,
        start_calls=start_calls,
        window_calls=window_calls,
    )


def _shown_calls(session: Session, *, has_base: bool) -> tuple[int, int]:
    """Runs on trainset examples for what canvases show: at the start, and for a window.

    Where the trainset selects, its runs are there already, unless the base made them.
    """
    task, wanted = session.task, session.condition_on != "examples"
    shown = len(task.trainset[: 2 * session.selection.shots])
    if task.selects_on_trainset and not has_base:
        return 0, 0
    return shown * needs_traces(task.student, task.trainset), shown * wanted
