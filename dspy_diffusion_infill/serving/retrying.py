"""When an answer is worth another try, and when to make it.

Pure: no dspy, no torch.
"""

from __future__ import annotations

import random

import httpx

WORTH_IT = (429, 503)
"""Statuses of a server that is busy, or about to be replaced."""
LOST = (500, 502)
"""Statuses of a proxy that lost the server behind it, such as a replica that was killed."""
MAX_WAIT_S = 30.0


def seconds_to_wait(attempt: int, answer: httpx.Response | None) -> float:
    """Before the next try: what the server says, else twice as long each time.

    Waits are spread, so that clients who failed together do not come back together.

    Args:
        attempt: 0 after the first try.
        answer: What came; None if nothing did.

    Example:
        >>> seconds_to_wait(0, httpx.Response(429, headers={"Retry-After": "7"}))
        7.0
        >>> 0.5 <= seconds_to_wait(1, None) <= 1.0
        True
    """
    said = "" if answer is None else answer.headers.get("retry-after", "")
    if said.isdecimal():
        return min(float(said), MAX_WAIT_S)
    return min(0.5 * 2**attempt, MAX_WAIT_S) * random.uniform(0.5, 1.0)


def worth_another_try(answer: httpx.Response) -> bool:
    """Whether the same request may be answered later.

    The server's own word is JSON: what it says went wrong would go wrong again.

    Example:
        >>> worth_another_try(httpx.Response(500, text="Internal Server Error"))
        True
        >>> worth_another_try(httpx.Response(500, json={"error": {"message": "The server failed."}}))
        False
    """
    own = answer.headers.get("content-type", "").startswith("application/json")
    return answer.status_code in WORTH_IT or (answer.status_code in LOST and not own)
