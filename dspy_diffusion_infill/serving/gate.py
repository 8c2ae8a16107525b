"""What a request must be before it is looked into: for this host, with a key, small, on time."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Sequence
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dspy_diffusion_infill.errors import InfillError, RefusedError
from dspy_diffusion_infill.serving.limits import LOOPBACK, Limits

OPEN_PATHS = ("/health",)
"""Answered without a key, for load balancers."""


class Gate:
    """ASGI middleware that turns away what must not come in.

    Without keys only requests that name a loopback host are let in: a web page whose name was made to point
    here (DNS rebinding) names its own. Keys are compared in constant time. Neither keys nor bodies are
    written anywhere.

    Args:
        app: What is behind.
        keys: Any of them opens; none: no key is asked for.
        limits: The size of a body, and the time for it to arrive.
    """

    def __init__(self, app: ASGIApp, *, keys: Sequence[str], limits: Limits) -> None:
        self._app, self._keys, self._limits = app, [key.encode() for key in keys], limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            scope["infill.client"] = self._client(scope, Headers(scope=scope))
            body = await self._body(Headers(scope=scope), receive)
        except RefusedError as error:
            await refusal(error)(scope, receive, send)
            return
        if body is not None:
            await self._app(scope, _replay(body, receive), send)

    def _client(self, scope: Scope, headers: Headers) -> str:
        """Who asks: the number of the key, else the address."""
        if self._keys:
            return self._number_of_key(scope, headers)
        if _host(headers.get("host", "")) not in LOOPBACK:
            raise RefusedError(
                403, "unknown_host", f"The Host of a request must be one of {', '.join(LOOPBACK)}."
            )
        return str((scope.get("client") or ("",))[0])

    def _number_of_key(self, scope: Scope, headers: Headers) -> str:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        found = [
            hmac.compare_digest(given.strip(" \t").encode("latin-1", "replace"), key) for key in self._keys
        ]
        if scheme.lower() == "bearer" and any(found):
            return f"key {found.index(True)}"
        if scope["path"] in OPEN_PATHS:
            return "nobody"
        raise RefusedError(
            401, "invalid_api_key", "The header 'Authorization: Bearer KEY' must hold a key of this server."
        )

    async def _body(self, headers: Headers, receive: Receive) -> bytes | None:
        """The whole body; None if the client left meanwhile."""
        declared = headers.get("content-length", "0")
        if not declared.isdecimal() or int(declared) > self._limits.body_bytes:
            raise self._too_large()
        try:
            async with asyncio.timeout(self._limits.arrival_s):
                return await self._read(receive)
        except TimeoutError:
            message = f"A request must arrive within {self._limits.arrival_s:g} seconds."
            raise RefusedError(408, "too_slow", message) from None

    async def _read(self, receive: Receive) -> bytes | None:
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            if len(body) > self._limits.body_bytes:
                raise self._too_large()
            if not message.get("more_body"):
                return bytes(body)

    def _too_large(self) -> RefusedError:
        return RefusedError(413, "too_large", f"A body must have at most {self._limits.body_bytes} bytes.")


def refusal(error: RefusedError) -> JSONResponse:
    """The answer that says why a request was refused, in OpenAI's shape."""
    headers = {} if error.retry_after_s is None else {"retry-after": str(error.retry_after_s)}
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    if error.status in (408, 413):
        headers["connection"] = "close"  # what is left of the body is not read
    return JSONResponse(error_body(error), error.status, headers)


def error_body(error: InfillError) -> dict[str, Any]:
    """What went wrong, in OpenAI's shape; what the server did not refuse itself is wrong with the request."""
    status, code = (error.status, error.code) if isinstance(error, RefusedError) else (400, "invalid_request")
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return {"error": {"message": str(error), "type": kind, "code": code, "param": None}}


def _host(header: str) -> str:
    """The name in a Host header, without its port."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0].lower()


def _replay(body: bytes, receive: Receive) -> Receive:
    """Gives the body, and after it what the connection gives."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
