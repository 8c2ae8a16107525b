"""In which order windows are decided when each sees what was accepted before."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.prompts.candidates import Candidate
from dspy_diffusion_infill.prompts.canvas import Infiller, Scorer
from dspy_diffusion_infill.prompts.windows import Masking
from dspy_diffusion_infill.search.proposals import Place, Proposer


def check_scorer(infiller: Infiller, masking: Masking, screen: float = 1.0) -> Infiller:
    """Check that an infiller can rank windows, if the masking wants that, or fillings, if they are screened.

    Args:
        infiller: Returned as it is.
        masking: Says in which order windows come.
        screen: Share of the fillings that are scored by running the program.

    Raises:
        SettingsError: If not.
    """
    if masking.order == "least_sure" and not isinstance(infiller, Scorer):
        raise SettingsError(
            f"order must be 'successive' or 'independent' with {infiller.name}, which is no Scorer and so "
            "does not say how likely a text is; got 'least_sure'. Take one of these, or load a model here."
        )
    if screen < 1 and not isinstance(infiller, Scorer):
        raise SettingsError(
            f"screen must be 1 with {infiller.name}, which does not say how likely a text is (no "
            f"nll_per_token); got {screen}. Leave it out, or load a model in this process."
        )
    return infiller


def one_pass(masking: Masking, proposer: Proposer, best: Callable[[], Candidate]) -> Iterator[Place]:
    """The windows of one pass, one after the other, over instructions that may change on the way.

    Args:
        masking: Says in which order.
        proposer: Says which windows there are, and how sure of them the model is.
        best: The instructions as they are when the next window is asked for.
    """
    if masking.order == "least_sure":
        yield from _least_sure_first(proposer, best)
        return
    for predictor in best():
        yield from _left_to_right(predictor, proposer, best)


def _left_to_right(predictor: str, proposer: Proposer, best: Callable[[], Candidate]) -> Iterator[Place]:
    """No more windows than the text had at first."""
    start = -1
    for _ in proposer.places(best(), predictor):
        places = proposer.places(best(), predictor)
        place = next((place for place in places if place.window.start > start), None)
        if place is None:
            return
        yield place
        start = place.window.start


def _least_sure_first(proposer: Proposer, best: Callable[[], Candidate]) -> Iterator[Place]:
    """No more windows than there were at first; ranked anew as soon as the instructions have changed."""
    base = best()
    left = sum(len(proposer.places(base, predictor)) for predictor in base)
    while left > 0:
        base = best()
        for place in proposer.least_sure(base)[:left]:
            left -= 1
            yield place
            if best() != base:
                break
        else:
            return
