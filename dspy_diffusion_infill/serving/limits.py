"""What a server takes on."""

from __future__ import annotations

from dataclasses import dataclass

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Hosts that only this machine reaches."""
MAX_CANVASES = 64
"""Of one request."""
MAX_CANDIDATES = 1024
"""Fillings of one canvas, or answers to one question."""
MAX_STEPS = 4096
"""Denoising steps; more than there are masks do nothing."""
MAX_PARTS = 1024
"""Parts of one message, messages of one conversation."""
MAX_TEXT = 2**19
"""Characters of any text. A tokenizer keeps all of the process waiting until it is through, here a second."""
MAX_TOKENIZED = 2**17
"""Characters of a text to be divided: the answer has some twenty bytes for each token."""
MAX_SCORE_SAMPLES = 256
"""Draws of a likelihood estimate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds that whoever serves may set."""

    body_bytes: int = 4 * 2**20
    """Of a request's body."""
    requests: int = 256
    """In work or waiting, of all clients together; beyond it: 429."""
    requests_per_client: int = 128
    """The same, of one client."""
    seconds: float = 600.0
    """For the answer to one request; then it is given up, with 504."""
    new_tokens: int = 65_536
    """Mask tokens of one request, times the candidates."""
    arrival_s: float = 10.0
    """For a request to arrive whole, and for a connection to send one."""
