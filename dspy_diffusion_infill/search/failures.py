"""What an error says: that a prompt is bad, that a service is down for now, or that it refuses this user.

By the names of the classes, since they live in other places in other versions of DSPy, and come from LiteLLM
and the provider's own client before DSPy 3.2. Pure: no dspy, no torch.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

Answer = TypeVar("Answer")

PROMPT = {"AdapterParseError", "ContextWindowExceededError", "LMInvalidRequestError"}
"""The answer cannot be parsed, or the request is too long or malformed."""
UNREADABLE = {"LMProviderError", "APIError", "APIResponseValidationError"}
"""An answer that is none: an empty or broken body. The class itself; others that derive from it say more."""
OUTAGE = {
    *UNREADABLE,
    *("LMRateLimitError", "LMServerError", "LMTimeoutError", "LMTransportError"),  # DSPy
    *(
        "RateLimitError",
        "InternalServerError",
        "ServiceUnavailableError",
        "BadGatewayError",
    ),  # LiteLLM, openai
    *("Timeout", "APITimeoutError", "APIConnectionError"),
    *("ConnectionError", "TimeoutError", "TransportError"),  # Python, httpx
    *("InfillerUnavailableError", "JudgeUnavailableError"),
}
"""Too many requests, no connection, no answer in time, none that can be read, or a fault of the server."""
REFUSAL = {
    *("LMAuthError", "LMBillingError", "LMConfigurationError", "LMUnsupportedModelError"),  # DSPy
    *("AuthenticationError", "PermissionDeniedError", "PaymentRequiredError", "BudgetExceededError"),
}
"""No access, no money, or no such model: the next call would fail as well."""
PAUSES = (1.0, 4.0, 16.0)
"""Seconds before each further try; the task LM's own retries come before them."""


def is_prompts_fault(error: BaseException) -> bool:
    """Whether a prompt is to blame for an error; if not, the error may say nothing about the prompt."""
    return (bool(_names(error) & PROMPT) and not _names(error) & REFUSAL) or _gave_up(error)


def is_outage(error: BaseException) -> bool:
    """Whether a later try may succeed."""
    return _first_known(error) is OUTAGE


def is_refusal(error: BaseException) -> bool:
    """Whether no try can succeed until the user mends something."""
    return _first_known(error) is REFUSAL


def retry(call: Callable[[], Answer], pauses: Sequence[float], wait: Callable[[float], object]) -> Answer:
    """Call again after each pause while an outage lasts; other errors, and the last one, are raised.

    Args:
        call: What to try.
        pauses: Seconds before each further try.
        wait: Waits so long; says True if there is to be no further try.

    Example:
        >>> answers = iter([TimeoutError(), "here"])
        >>> def call():
        ...     if isinstance(answer := next(answers), TimeoutError):
        ...         raise answer
        ...     return answer
        >>> retry(call, [1, 4], print)
        1
        'here'
    """
    for pause in pauses:
        try:
            return call()
        except Exception as error:
            if not is_outage(error) or wait(pause):
                raise
    return call()


def describe(error: BaseException) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {error}"


def _gave_up(error: BaseException) -> bool:
    """Whether a module of DSPy made nothing of what the LM wrote, as ProgramOfThought after its last try."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    module = frames[-1].f_globals.get("__name__", "") if frames else ""
    return type(error) is RuntimeError and module.startswith("dspy.predict.")


def _first_known(error: BaseException) -> set[str] | None:
    """The kind of the error, or of the first of its causes that is of a known kind."""
    kinds = (kind for cause in _causes(error) for kind in (REFUSAL, PROMPT, OUTAGE) if _names(cause) & kind)
    return next(kinds, None)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _names(error: BaseException) -> set[str]:
    names = {cls.__name__ for cls in type(error).__mro__}
    return names if type(error).__name__ in UNREADABLE else names - UNREADABLE
