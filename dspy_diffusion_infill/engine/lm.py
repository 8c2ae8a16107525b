"""DiffusionLM: a masked diffusion LM behind `dspy.LM`."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import dspy

from dspy_diffusion_infill.engine.batching import MicroBatcher
from dspy_diffusion_infill.engine.denoise import denoise, row_seed
from dspy_diffusion_infill.engine.generation import Generation, read_answer
from dspy_diffusion_infill.engine.lm_async import AsyncDiffusionEngine
from dspy_diffusion_infill.engine.model import Dtype, Loading, load
from dspy_diffusion_infill.engine.placement import Bits
from dspy_diffusion_infill.engine.requests import SUPPORTED, check_supported, lm15, read_messages
from dspy_diffusion_infill.engine.reverse import Filled, Task
from dspy_diffusion_infill.errors import ModelError


def DiffusionLM(  # noqa: N802  (reads as the class that a DSPy user expects)
    model: str,
    *,
    max_tokens: int = 128,
    temperature: float = 0.0,
    generation: Generation = Generation(),  # noqa: B008  (frozen)
    cache: bool = True,
    device: str = "auto",
    dtype: Dtype = "auto",
    revision: str | None = None,
    device_map: str | None = None,
    bits: Bits | None = None,
    memory_gb: float | None = None,
) -> dspy.LM:
    """A `dspy.LM` that answers with a masked diffusion LM in this process.

    Args:
        model: "embedded", a folder, or a hub id.
        max_tokens: Mask tokens that an answer starts from.
        temperature: Of the token choice, in units of logits; 0 takes the likeliest token.
        generation: How answers are written.
        cache: Whether DSPy caches answers. Checkpoint and settings are part of the key.
        device: As in `load`.
        dtype: As in `load`.
        revision: As in `load`.
        device_map: As in `load`.
        bits: As in `load`.
        memory_gb: As in `load`.

    Raises:
        ModelError: If the model cannot be loaded.

    Example:
        >>> lm = DiffusionLM("embedded", max_tokens=8)  # doctest: +SKIP
        >>> dspy.configure(lm=lm)  # doctest: +SKIP
    """
    loading = Loading(
        device=device,
        dtype=dtype,
        revision=revision,
        device_map=device_map,
        bits=bits,
        memory_gb=memory_gb,
    )
    engine = DiffusionEngine(model, generation, loading)
    return dspy.LM(
        engine.name,
        engine=engine,
        async_engine=AsyncDiffusionEngine(engine),
        max_tokens=max_tokens,
        temperature=temperature,
        cache=cache,
    )


@dataclass(frozen=True, slots=True)
class _Job:
    task: Task
    temperature: float
    num_prompt_tokens: int


class DiffusionEngine:
    """Answers DSPy's requests with a masked diffusion LM: an engine for `dspy.LM`.

    A prompt is laid out in the model's chat format, an assistant turn of mask tokens is opened after it, and
    denoised block by block; the answer is what precedes the first end-of-text token. Concurrent requests
    share batches. The n-th request of the same content gets noise of its own, so that `n` answers at a
    temperature differ, and differ in the same way in another process. Copies share the weights.

    Args:
        model: "embedded", a folder, or a hub id.
        generation: How answers are written.
        loading: As in `load`.

    Raises:
        ModelError: If the model cannot be loaded.
    """

    supported_params = SUPPORTED

    def __init__(
        self,
        model: str,
        generation: Generation = Generation(),  # noqa: B008  (frozen)
        loading: Loading = Loading(),  # noqa: B008  (never changed)
    ) -> None:
        self.generation = generation
        self._model = load(model, **loading)
        self._source, self._loading = model, loading
        self._repeats: Counter[tuple[int, float]] = Counter()
        self._counting = threading.Lock()
        self._batcher: MicroBatcher[_Job, Filled] = MicroBatcher(self._run)

    @property
    def name(self) -> str:
        """Names checkpoint, precision and every setting: DSPy caches answers under it."""
        return f"diffusion/{self._model.name}?{self.generation}"

    def complete(self, request: lm15.Request) -> lm15.Response:
        """Answer one request.

        Raises:
            lm15.ContextLengthError: If prompt and answer do not fit the model's context.
            lm15.UnsupportedFeatureError: If the request asks for something this engine does not do.
        """
        job = self._job(request)
        return self._response(request, job, self._batcher.wait(self._batcher.submit(job)))

    async def acomplete(self, request: lm15.Request) -> lm15.Response:
        """Answer one request; see `complete`."""
        job = self._job(request)
        future = self._batcher.submit(job)
        return self._response(request, job, await asyncio.to_thread(self._batcher.wait, future))

    def stream(self, request: lm15.Request) -> Iterator[Any]:
        """The answer as events. It comes whole: diffusion does not write from left to right."""
        return lm15.response_to_events(self.complete(request))

    def close(self) -> None:
        """Nothing to close: weights go when nobody refers to them."""

    def dump_state(self) -> dict[str, Any]:
        """Checkpoint, settings and the precision in use, without weights."""
        loading = {**self._loading, "dtype": self._model.name.rpartition(":")[2]}
        return {
            "model": self._source,
            "loading": loading,
            "name": self._model.name,
            "generation": asdict(self.generation),
        }

    @classmethod
    def load_state(cls, state: dict[str, Any]) -> DiffusionEngine:
        """The engine that was dumped; weights already in memory are shared.

        Raises:
            ModelError: If the checkpoint is not the one that was dumped.
        """
        engine = cls(state["model"], Generation(**state["generation"]), state["loading"])
        if engine._model.name != state["name"]:
            raise ModelError(f"The saved LM must find {state['name']}; got {engine._model.name}.")
        return engine

    def __copy__(self) -> DiffusionEngine:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> DiffusionEngine:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).load_state, (self.dump_state(),)

    def _job(self, request: lm15.Request) -> _Job:
        check_supported(request)
        config = request.config
        if config.max_tokens is None:
            raise lm15.InvalidRequestError("max_tokens must be set: an answer starts from that many masks.")
        laid_out = self._model.vocabulary.lay_out(read_messages(request), answer_tokens=config.max_tokens)
        num_prompt_tokens = len(laid_out.ids) - config.max_tokens
        if len(laid_out.ids) > self._model.context_length:
            raise lm15.ContextLengthError(
                f"Prompt and answer must have at most {self._model.context_length} tokens together; "
                f"got {num_prompt_tokens} and max_tokens={config.max_tokens}."
            )
        temperature = config.temperature or 0.0
        seed = self.generation.seed if config.seed is None else config.seed
        repeat = self._repeat(row_seed(seed, laid_out.ids, 0), temperature)
        return _Job(Task(laid_out.ids, row_seed(seed, laid_out.ids, repeat)), temperature, num_prompt_tokens)

    def _repeat(self, content: int, temperature: float) -> int:
        """How often the same was asked before."""
        with self._counting:
            self._repeats[content, temperature] += 1
            return self._repeats[content, temperature] - 1

    def _run(self, jobs: Sequence[_Job]) -> list[Filled]:
        """One batch for each temperature asked for; usually there is one."""
        filled: dict[int, Filled] = {}
        temperatures = [job.temperature for job in jobs]
        for temperature in sorted(set(temperatures)):
            members = [index for index, other in enumerate(temperatures) if other == temperature]
            decoding = self.generation.decoding(temperature, self._model.vocabulary.stop_ids)
            results = denoise(self._model, [jobs[index].task for index in members], decoding)
            filled.update(zip(members, results, strict=True))
        return [filled[index] for index in range(len(jobs))]

    def _response(self, request: lm15.Request, job: _Job, filled: Filled) -> lm15.Response:
        answer = read_answer(self._model.vocabulary, filled.ids[job.num_prompt_tokens :], request.config.stop)
        return lm15.Response(
            id=None,
            model=request.model,
            message=lm15.Message.assistant([lm15.TextPart(answer.text)]),
            finish_reason="stop" if answer.stopped else "length",
            usage=lm15.Usage(input_tokens=job.num_prompt_tokens, output_tokens=answer.num_tokens),
        )
