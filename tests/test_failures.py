"""Failures: whose fault an error is, by the names that DSPy, LiteLLM, openai, httpx and Python use."""

import pytest

from dspy_diffusion_infill.search.failures import is_outage, is_prompts_fault, is_refusal, retry


def error(*names, cause=None):
    """An error whose class and its bases have these names, the most special first."""
    cls = Exception
    for name in reversed(names):
        cls = type(name, (cls,), {})
    raised = cls("x")
    raised.__cause__ = cause
    return raised


PROMPT, OUTAGE, REFUSAL, NONE = "prompt", "outage", "refusal", None


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (error("AdapterParseError"), PROMPT),
        (error("ContextWindowExceededError", "LMInvalidRequestError"), PROMPT),
        (error("LMUnsupportedModelError", "LMInvalidRequestError"), REFUSAL),
        (error("LMRateLimitError", "LMProviderError"), OUTAGE),
        (error("RateLimitError", "APIStatusError"), OUTAGE),
        (error("Timeout", "APITimeoutError", "APIConnectionError"), OUTAGE),
        (ConnectionResetError(), OUTAGE),
        (error("ReadTimeout", "TimeoutException", "TransportError"), OUTAGE),
        (error("LMProviderError"), OUTAGE),
        (error("EvaluationError", cause=error("APIError")), OUTAGE),
        (error("BadRequestError", "APIError"), NONE),
        (error("LMAuthError"), REFUSAL),
        (error("AuthenticationError", "APIStatusError"), REFUSAL),
        (error("EvaluationError", cause=error("LMServerError")), OUTAGE),
        (error("LMUnexpectedError", cause=TimeoutError()), OUTAGE),
        (error("LMBillingError", cause=error("RateLimitError")), REFUSAL),
        (error("MetricError", cause=error("AdapterParseError", cause=TimeoutError())), NONE),
        (error("LMUnexpectedError"), NONE),
        (KeyError("x"), NONE),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_every_error_has_its_kind(raised, kind):
    found = {PROMPT: is_prompts_fault(raised), OUTAGE: is_outage(raised), REFUSAL: is_refusal(raised)}
    assert [name for name, is_it in found.items() if is_it] == ([kind] if kind else [])


def failing_times(count, raised):
    calls = []

    def call():
        calls.append(1)
        if len(calls) <= count:
            raise raised
        return len(calls)

    return call


def test_an_outage_is_tried_again_after_each_pause():
    waited = []
    assert retry(failing_times(2, TimeoutError()), [1, 4], waited.append) == 3
    assert waited == [1, 4]


def test_the_last_error_and_every_other_error_are_raised():
    waited = []
    with pytest.raises(TimeoutError):
        retry(failing_times(3, TimeoutError()), [1, 4], waited.append)
    with pytest.raises(KeyError):
        retry(failing_times(1, KeyError()), [1, 4], waited.append)
    assert waited == [1, 4]


def test_without_time_for_another_try_the_error_is_raised():
    with pytest.raises(TimeoutError):
        retry(failing_times(1, TimeoutError()), [1, 4], lambda pause: True)
