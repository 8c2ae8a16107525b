"""What is found at which path."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from dspy_diffusion_infill.errors import RefusedError
from dspy_diffusion_infill.serving.answers import ChatAnswer, CompletionAnswer, Health, ModelCard, ModelList
from dspy_diffusion_infill.serving.asking import Asking, client_of, left
from dspy_diffusion_infill.serving.events import Events, events
from dspy_diffusion_infill.serving.limits import MAX_CANDIDATES, MAX_CANVASES, Limits
from dspy_diffusion_infill.serving.metrics import Metrics
from dspy_diffusion_infill.serving.openai import (
    ChatRequest,
    CompletionRequest,
    Envelope,
    GenerationRequest,
    choice,
)
from dspy_diffusion_infill.serving.scheduler import Scheduler
from dspy_diffusion_infill.serving.schemas import Body, ErrorAnswer, InfillAnswer, InfillRequest
from dspy_diffusion_infill.serving.service import Service
from dspy_diffusion_infill.serving.text_schemas import (
    ScoreAnswer,
    ScoreRequest,
    TokenizeAnswer,
    TokenizeRequest,
)
from dspy_diffusion_infill.serving.work import Ticket
from dspy_diffusion_infill.serving.writing import Writer, Writing

Responses = dict[int | str, dict[str, Any]]
"""What FastAPI is told of answers, by status."""
DOWN: Responses = {503: {"model": Health, "description": "It is not"}}
OTHER: Responses = {404: {"model": ErrorAnswer, "description": "Another model"}}


class Routes:
    """The server's paths.

    Args:
        service: Infills, scores and tokenizes.
        writer: Writes answers.
        asking: Has work done.
        scheduler: Says whether it is alive.
        metrics: What there is to count.
        limits: Told to clients.
    """

    def __init__(
        self,
        service: Service,
        writer: Writer,
        asking: Asking,
        scheduler: Scheduler,
        metrics: Metrics,
        limits: Limits,
    ) -> None:
        self._service, self._writer, self._asking = service, writer, asking
        self._scheduler, self._metrics, self._limits = scheduler, metrics, limits
        self._started = int(time.time())

    def router(self) -> APIRouter:
        """All paths."""
        router = APIRouter()
        get, post = router.get, partial(router.post, dependencies=[Depends(says_json)])
        get("/health", summary="Whether work is done", response_model=Health, responses=DOWN)(self.health)
        get("/metrics", summary="For Prometheus", response_class=PlainTextResponse)(self.metrics)
        get("/v1/models", summary="The served model")(self.models)
        get("/v1/models/{name:path}", summary="The served model, by name", responses=OTHER)(self.model)
        post("/v1/infill", summary="Fill masks anywhere in a conversation")(self.infill)
        post("/v1/score", summary="How likely texts are to the model")(self.score)
        post("/v1/tokenize", summary="Tokens of a text, or how many a canvas has")(self.tokenize)
        write = partial(post, response_model=None)
        write("/v1/chat/completions", summary="OpenAI's chat", responses=_written(ChatAnswer))(self.chat)
        write("/v1/completions", summary="OpenAI's completions", responses=_written(CompletionAnswer))(
            self.complete
        )
        return router

    async def health(self) -> JSONResponse:
        alive = self._scheduler.alive
        return JSONResponse({"status": "ok" if alive else "down"}, 200 if alive else 503)

    async def metrics(self) -> Response:
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def models(self) -> ModelList:
        return ModelList(data=[self._card()])

    async def model(self, name: str) -> ModelCard:
        self._service.check_name(name)
        return self._card()

    async def infill(self, request: Request, body: InfillRequest) -> InfillAnswer:
        self._service.check_name(body.model)
        client = client_of(request, body.user)
        return await self._asking.answer(request, client, partial(self._service.infill, body))

    async def score(self, request: Request, body: ScoreRequest) -> ScoreAnswer:
        self._service.check_name(body.model)
        client = client_of(request, body.user)
        return await self._asking.answer(request, client, partial(self._service.score, body))

    async def tokenize(self, request: Request, body: TokenizeRequest) -> TokenizeAnswer:
        self._service.check_name(body.model)
        client = client_of(request, None)
        return await self._asking.answer(request, client, lambda _: self._service.tokenize(body))

    async def chat(self, request: Request, body: ChatRequest) -> Response:
        return await self._write(request, body, partial(self._writer.chat, body))

    async def complete(self, request: Request, body: CompletionRequest) -> Response:
        return await self._write(request, body, partial(self._writer.complete, body))

    async def _write(self, request: Request, body: GenerationRequest, plan: partial[Writing]) -> Response:
        self._service.check_name(body.model)
        client = client_of(request, body.user)
        with ExitStack() as place:
            place.enter_context(self._asking.desk.place(client))
            writing = await self._asking.finish(Ticket(client), lambda _: plan())
            envelope = Envelope(writing.kind, self._service.name, chunk=bool(body.stream))
            if body.stream:
                with_usage = body.stream_options is not None and body.stream_options.include_usage
                told = events(
                    self._asking, self._writer, writing, Ticket(client), envelope, with_usage=with_usage
                )
                return Events(told, place.pop_all(), seconds=self._limits.seconds, metrics=self._metrics)
            answers = await self._asking.finish(
                Ticket(client), partial(self._writer.write, writing), left(request)
            )
        choices = [
            choice(writing.kind, index, answers[task].text, "stop" if answers[task].stopped else "length")
            for index, task in enumerate(writing.choices)
        ]
        return JSONResponse(envelope(choices, self._writer.usage(writing, answers)))

    def _card(self) -> ModelCard:
        return ModelCard(
            id=self._service.name,
            created=self._started,
            fingerprint=self._service.model.name,
            context_length=self._service.model.context_length,
            cache=self._service.cache,
            scorer=True,
            limits={**asdict(self._limits), "canvases": MAX_CANVASES, "n": MAX_CANDIDATES},
        )


async def says_json(request: Request) -> None:
    """Refuse a body that does not say that it is JSON: a web page cannot say so without asking first.

    Raises:
        RefusedError: If it does not.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise RefusedError(415, "not_json", "The header 'Content-Type' must be application/json.")


def _written(answer: type[Body]) -> Responses:
    stream = {"schema": {"type": "string", "description": "Server-sent events, the last of them [DONE]."}}
    return {200: {"model": answer, "description": "The answers", "content": {"text/event-stream": stream}}}
