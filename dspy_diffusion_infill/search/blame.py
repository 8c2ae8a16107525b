"""Whose fault it is that a program raised an error of its own: a candidate's, or everyone's."""

from __future__ import annotations

from collections.abc import Mapping

from dspy_diffusion_infill.search.kept_runs import Place
from dspy_diffusion_infill.search.running import Run, Runner
from dspy_diffusion_infill.search.variants import Variants

MAX_CRASHED = 0.2
"""Share of the examples on which the first runs may raise; a program that raises on more is broken."""


PROOFS = 3
"""Tries of a run that went well once: an LM that answers by chance may break the program now and then."""


class Blame:
    """Tells a candidate that makes the program raise from a program that does not run, now or ever.

    At first most runs must go well. From then on errors are the candidates', as long as one of these runs
    goes well again when there are any; it is not scored, and so costs no metric call.

    Args:
        runner: Made the runs.
        variants: Has the programs.
        num_examples: Without repeats.
    """

    def __init__(self, runner: Runner, variants: Variants, num_examples: int) -> None:
        self._runner, self._variants, self._num_examples = runner, variants, num_examples
        runner.max_crashes = MAX_CRASHED * num_examples

    def check(self, done: Mapping[Place, Run]) -> list[Place]:
        """The runs that raised by a candidate's fault.

        Raises:
            EvaluationError: If the program is to blame.
        """
        crashed = [place for place, run in done.items() if run.crashed]
        if self._runner.is_broken:
            self._runner.raise_crash()
        if crashed and self._runner.proof is not None and not self._goes_well():
            self._runner.raise_crash()
        return crashed

    def _goes_well(self) -> bool:
        return any(self._runner.goes_well() for _ in range(PROOFS))

    def learn(self, place: Place, run: Run) -> None:
        """Remember the first run that went well."""
        if self._runner.proof is None and run.score is not None:
            prompt, example = place
            program = self._variants.get(dict(prompt), example // self._num_examples)
            self._runner.proof = (program, example)
            self._runner.max_crashes = float("inf")
