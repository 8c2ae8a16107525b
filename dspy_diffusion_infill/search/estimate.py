"""What a run may cost, before anything is spent.

Pure: no dspy, no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dspy_diffusion_infill.prompts.candidates import Candidate
from dspy_diffusion_infill.prompts.canvas import Infiller
from dspy_diffusion_infill.prompts.locks import Lock, locked_spans
from dspy_diffusion_infill.prompts.windows import Masking
from dspy_diffusion_infill.search.budget import Budget


@dataclass(frozen=True, slots=True)
class Estimate:
    """What one `compile` may cost at most, as far as it is known before the base has run."""

    metric_calls: int | None
    """Cap on program runs; None if only other caps are set."""
    base_metric_calls: int | None
    """Of these, the most that the base may use."""
    start_metric_calls: int
    """Of these, the most that scoring the start costs: the student, and what the base makes of it unless the
    base has scored them; and runs on trainset examples for the steps that labels leave out."""
    window_metric_calls: int
    """Of these, the most that one window costs, when none of its fillings drops out early; runs on trainset
    examples for traces included."""
    lm_calls_per_metric_call: int
    """Predictors of the program: the least. Agents and loops call one several times, and an answer that
    cannot be parsed is asked for again."""
    windows: dict[str, int]
    """Windows of a pass, by predictor."""
    fillings_per_pass: int
    """Asked of the infiller; the most candidates that a pass can score."""

    @property
    def is_tight(self) -> bool:
        """Whether the budget may end before the first window is decided."""
        needed = self.start_metric_calls + self.window_metric_calls
        return self.metric_calls is not None and self.metric_calls < needed

    def __str__(self) -> str:
        calls = "unknown" if self.metric_calls is None else f"at most {self.metric_calls}"
        return (
            f"Metric calls: {calls}, up to {self.start_metric_calls} of them to score the start, and up to "
            f"{self.window_metric_calls} a window; LM calls in each: {self.lm_calls_per_metric_call} or "
            f"more; windows in a pass: {sum(self.windows.values())}, with {self.fillings_per_pass} fillings."
        )


def estimate(
    budget: Budget,
    windows: Mapping[str, int],
    *,
    num_examples: int,
    num_candidates: int,
    has_base: bool,
    start_calls: int = 0,
    window_calls: int = 0,
) -> Estimate:
    """Put together what is known.

    Args:
        budget: The caps.
        windows: Windows of a pass, by predictor.
        num_examples: Validation examples.
        num_candidates: Fillings a window.
        has_base: Whether a base runs first.
        start_calls: Runs at the start for what canvases show.
        window_calls: Those of a window.

    Example:
        >>> budget = Budget(metric_calls=90)
        >>> found = estimate(budget, {"self": 3}, num_examples=9, num_candidates=8, has_base=False)
        >>> found.metric_calls, found.start_metric_calls, found.fillings_per_pass
        (90, 9, 24)
    """
    cap = budget.metric_calls
    share = budget.base_share if has_base else 0.0
    return Estimate(
        metric_calls=cap,
        base_metric_calls=None if cap is None else int(share * cap),
        start_metric_calls=(1 + has_base) * num_examples + start_calls,
        window_metric_calls=num_candidates * num_examples + window_calls,
        lm_calls_per_metric_call=len(windows),
        windows=dict(windows),
        fillings_per_pass=num_candidates * sum(windows.values()),
    )


def count_windows(
    instructions: Candidate, masking: Masking, locks: Mapping[str, Sequence[Lock]], infiller: Infiller
) -> dict[str, int]:
    """How many windows each predictor's instructions have, clear of what is locked."""
    return {
        name: len(masking.cutter(name, text)(text, infiller.offsets(text), locked_spans(text, locks[name])))
        for name, text in instructions.items()
    }
