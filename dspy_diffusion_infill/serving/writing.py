"""Answers to questions, and continuations of texts: what OpenAI's API asks of a model that writes."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product

from dspy_diffusion_infill.engine.denoise import row_seed
from dspy_diffusion_infill.engine.generation import Answer, Generation, read_answer
from dspy_diffusion_infill.engine.reverse import Decoding, Filled, Task
from dspy_diffusion_infill.engine.vocabulary import Layout
from dspy_diffusion_infill.errors import RefusedError
from dspy_diffusion_infill.prompts.canvas import Masked
from dspy_diffusion_infill.serving.limits import Limits
from dspy_diffusion_infill.serving.openai import ChatRequest, CompletionRequest, GenerationRequest, Object
from dspy_diffusion_infill.serving.scheduler import Scheduler
from dspy_diffusion_infill.serving.schemas import Usage
from dspy_diffusion_infill.serving.service import Service
from dspy_diffusion_infill.serving.streaming import Growing
from dspy_diffusion_infill.serving.work import Ticket

MAX_TOKENS = 128
"""Mask tokens of an answer where a request does not say."""


@dataclass(frozen=True, slots=True)
class Writing:
    """What is to be written for one request. Where nothing is random, choices share a task."""

    kind: Object
    tasks: Sequence[Task]
    spans: Sequence[range]
    """Of each task, where its answer lies."""
    choices: Sequence[int]
    """The task of each choice."""
    decoding: Decoding
    stops: Sequence[str]
    num_prompt_tokens: int

    def choices_of(self, task: int) -> list[int]:
        """The choices that share a task."""
        return [index for index, one in enumerate(self.choices) if one == task]


class Writer:
    """Plans answers, has them written, and reads them.

    Args:
        service: Of the model.
        scheduler: Of the same.
        limits: On one request.
    """

    def __init__(self, service: Service, scheduler: Scheduler, limits: Limits) -> None:
        self._service, self._scheduler, self._limits = service, scheduler, limits
        self._vocabulary = service.model.vocabulary

    def chat(self, request: ChatRequest) -> Writing:
        """Plan the answer to a conversation.

        Raises:
            RefusedError: If it does not fit the context.
        """
        messages = [turn.read() for turn in request.messages]
        num_prompt = len(self._vocabulary.lay_out(messages, answer_tokens=1).ids) - 1
        size = self._size(num_prompt, request.max_completion_tokens or request.max_tokens)
        layout = self._vocabulary.lay_out(messages, answer_tokens=size)
        return self._plan("chat.completion", request, [layout])

    def complete(self, request: CompletionRequest) -> Writing:
        """Plan what follows each prompt, or what stands between it and the suffix.

        Raises:
            RefusedError: If it does not fit the context.
        """
        after = [request.suffix] if request.suffix else []
        layouts = []
        for prompt in request.prompts:
            num_given = len(self._vocabulary.lay_out_text([prompt, *after]).ids)
            size = self._size(num_given, request.max_tokens)
            layouts.append(self._vocabulary.lay_out_text([prompt, Masked(size), *after]))
        return self._plan("text_completion", request, layouts, may_stop=not after)

    def write(self, writing: Writing, ticket: Ticket) -> list[Answer]:
        """Write the answers: one for each task."""
        filled = self._scheduler.run(ticket, writing.tasks, writing.decoding)
        return list(map(partial(self._read, writing.stops), writing.spans, filled))

    def growing(self, writing: Writing) -> list[Growing]:
        """For each task, its text as it grows."""
        return [Growing(self._vocabulary, writing.stops) for _ in writing.tasks]

    def usage(self, writing: Writing, answers: Sequence[Answer]) -> Usage:
        """Tokens read and written, those of every choice."""
        num_written = sum(answers[task].num_tokens for task in writing.choices)
        return self._service.used(writing.num_prompt_tokens, num_written)

    def _size(self, num_given: int, asked: int | None) -> int:
        """Mask tokens of an answer."""
        room = self._service.model.context_length - num_given
        size = min(MAX_TOKENS, room) if asked is None else asked
        if room < 1 or size > room:
            raise RefusedError(
                400,
                "context_length_exceeded",
                f"Prompt and answer must have at most {self._service.model.context_length} tokens together; "
                f"got {num_given} and max_tokens={asked}.",
            )
        return size

    def _plan(
        self, kind: Object, request: GenerationRequest, layouts: Sequence[Layout], *, may_stop: bool = True
    ) -> Writing:
        decoding, n = self._decoding(request, may_stop), request.n or 1
        random = decoding.denoising.temperature > 0 or decoding.denoising.remasking == "random"
        copies = n if random else 1
        seed = secrets.randbits(63) if request.seed is None else request.seed
        num_masks = sum(len(layout.masked[-1]) for layout in layouts)
        if n * num_masks > self._limits.new_tokens:  # also of choices that share a task: each is sent
            message = f"max_tokens times n must be at most {self._limits.new_tokens} in one request."
            raise RefusedError(400, "too_many_tokens", message)
        return Writing(
            kind,
            [
                Task(layout.ids, row_seed(seed, layout.ids, number))  # of equal prompts, too, no two alike
                for number, (layout, _) in enumerate(product(layouts, range(copies)))
            ],
            [lay.masked[-1] for lay in layouts for _ in range(copies)],
            [number * copies + index % copies for number in range(len(layouts)) for index in range(n)],
            decoding,
            request.stops,
            sum(len(lay.ids) for lay in layouts) - num_masks,
        )

    def _decoding(self, request: GenerationRequest, may_stop: bool) -> Decoding:
        generation = Generation(
            steps=request.steps,
            block_length=request.block_length,
            threshold=request.threshold,
            remasking=request.remasking,
        )
        stop_ids = self._vocabulary.stop_ids if may_stop else frozenset()
        found = generation.decoding(request.temperature or 0.0, stop_ids)
        top_k = request.top_k if (request.top_k or 0) > 0 else None
        return replace(found, denoising=replace(found.denoising, top_p=request.top_p, top_k=top_k))

    def _read(self, stops: Sequence[str], span: range, filled: Filled) -> Answer:
        return read_answer(self._vocabulary, filled.ids[span.start : span.stop], stops)
