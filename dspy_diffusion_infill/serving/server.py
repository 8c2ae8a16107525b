"""The application: a model, its scheduler, and the paths that lead to them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cache, partial
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException

from dspy_diffusion_infill._version import __version__
from dspy_diffusion_infill.engine.model import TextModel
from dspy_diffusion_infill.errors import InfillError, RefusedError
from dspy_diffusion_infill.serving.asking import Asking
from dspy_diffusion_infill.serving.desk import Desk
from dspy_diffusion_infill.serving.document import document
from dspy_diffusion_infill.serving.gate import Gate, refusal
from dspy_diffusion_infill.serving.limits import Limits
from dspy_diffusion_infill.serving.metrics import Counted, Metrics
from dspy_diffusion_infill.serving.page import page
from dspy_diffusion_infill.serving.routes import Routes
from dspy_diffusion_infill.serving.scheduler import Scheduler
from dspy_diffusion_infill.serving.service import Service
from dspy_diffusion_infill.serving.writing import Writer

TYPES = ("str", "int", "float", "list")
"""What pydantic puts beside the names of fields."""


def create_app(
    model: TextModel,
    *,
    name: str,
    keys: Sequence[str] = (),
    limits: Limits = Limits(),  # noqa: B008  (frozen)
    max_tokens: int | None = None,
    metrics: Metrics | None = None,
) -> FastAPI:
    """The application that serves a model.

    Args:
        model: From `load`; nobody else may run it meanwhile.
        name: That requests call it by.
        keys: One of which every request must carry; none: only requests to a loopback host are answered.
        limits: What is taken on.
        max_tokens: In work at a time; None: by the device.
        metrics: That count; None: new ones.

    Example:
        >>> app = create_app(load("embedded"), name="embedded")  # doctest: +SKIP
        >>> uvicorn.run(app, http=PunctualProtocol)  # doctest: +SKIP
    """
    metrics = metrics or Metrics()
    scheduler = Scheduler(model, metrics, max_tokens)
    asking = Asking(Desk(limits, metrics), limits, metrics)
    service = Service(model, name, scheduler, limits, metrics)
    routes = Routes(service, Writer(service, scheduler, limits), asking, scheduler, metrics, limits)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with scheduler:
            yield
            await asking.close()

    app = FastAPI(
        title="Diffusion infill", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    app.include_router(routes.router())
    app.get("/docs", include_in_schema=False)(partial(_page, name))
    for kind, answer in ((RefusedError, _refused), (InfillError, _not_done), (HTTPException, _http)):
        app.add_exception_handler(kind, answer)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _failed)
    app.add_middleware(Gate, keys=keys, limits=limits)
    app.add_middleware(Counted, metrics=metrics)
    app.openapi = cache(lambda: document(app, name, has_keys=bool(keys)))
    return app


async def _page(name: str, request: Request) -> HTMLResponse:
    return HTMLResponse(page(request.app.openapi(), name, str(request.base_url).rstrip("/")))


async def _refused(request: Request, error: Any) -> JSONResponse:
    return refusal(error)


async def _not_done(request: Request, error: Any) -> JSONResponse:
    return refusal(RefusedError(400, "invalid_request", str(error)))


async def _http(request: Request, error: Any) -> JSONResponse:
    code = "invalid_request" if error.status_code == 400 else "not_served"  # 400: what is no JSON
    message = f"{request.method} {request.url.path}: {error.detail}."
    answer = refusal(RefusedError(error.status_code, code, message))
    answer.headers.update(error.headers or {})
    return answer


async def _invalid(request: Request, error: Any) -> JSONResponse:
    return refusal(RefusedError(400, "invalid_request", complaint(error.errors())))


async def _failed(request: Request, error: Any) -> JSONResponse:
    return refusal(RefusedError(500, "internal_error", "The server failed; its log says why."))


def complaint(errors: Sequence[Any]) -> str:
    """One sentence about the mistake that lies deepest, without what was sent.

    Example:
        >>> complaint([{"type": "", "loc": ("body", "canvases", 0, "messages"), "msg": "Field required"}])
        'canvases.0.messages: Field required.'
    """
    # of two shapes that a field may have, the one that was meant is the one whose type is right
    worst = max(errors, key=lambda error: (len(error["loc"]), not error["type"].endswith("_type")))
    if worst["type"] == "json_invalid":
        return f"The body must be JSON; character {worst['loc'][-1]}: {worst['ctx']['error']}."
    place = [str(step) for step in worst["loc"][1:] if isinstance(step, int) or step.isidentifier()]
    where = ".".join(step for step in place if step not in TYPES and not step[:1].isupper())
    return f"{where or 'body'}: {worst['msg'].removeprefix('Value error, ').rstrip('.')}."
