"""Doubles: an infiller that follows a script, and a task LM that answers by a rule."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Sequence
from types import SimpleNamespace

import dspy

from dspy_diffusion_infill.prompts.canvas import Canvas, Filling, Masked, Message


class ScriptedInfiller:
    """Fills masked parts from a script, in an order that the seed shifts. Tokens are words."""

    def __init__(self, *script: str, context_length: int = 10_000) -> None:
        self.script, self.context_length = script, context_length
        self.canvases: list[Canvas] = []
        self.seeds: list[int] = []

    @property
    def name(self) -> str:
        return f"scripted:{len(self.script)}"

    def offsets(self, text: str) -> list[tuple[int, int]]:
        return [match.span() for match in re.finditer(r"\S+", text)]

    def num_tokens(self, canvas: Canvas) -> int:
        return sum(
            part.num_tokens if isinstance(part, Masked) else len(part.split())
            for message in canvas.messages + canvas.context
            for part in message.parts
        )

    def infill(self, canvases: Sequence[Canvas], *, num_candidates: int, seed: int) -> list[list[Filling]]:
        self.canvases += canvases
        self.seeds.append(seed)
        return [[self._filling(seed, n) for n in range(num_candidates)] for _ in canvases]

    def _filling(self, seed: int, n: int) -> Filling:
        return Filling((self.script[(seed + n) % len(self.script)],), log_likelihood=-1.0, num_passes=1)


def system_text(canvas: Canvas) -> str:
    """The system message of a canvas, with `_` for each mask token."""
    return show(canvas.messages[0])


def show(message: Message) -> str:
    return "".join("_" * part.num_tokens if isinstance(part, Masked) else part for part in message.parts)


Answer = Callable[[str, str], str]
"""(system text, text of the last user turn) -> completion."""


class RuleEngine:
    """Answers each request by a rule; counts the calls."""

    def __init__(self, answer: Answer) -> None:
        self.answer, self.num_calls = answer, 0

    def complete(self, request):
        from dspy.lm15 import Message as Turn
        from dspy.lm15 import Response, TextPart, Usage

        self.num_calls += 1
        system = (
            request.system
            if isinstance(request.system, str)
            else "".join(p.text for p in request.system or ())
        )
        text = self.answer(system, request.messages[-1].text)
        return Response(
            id="1",
            model=request.model,
            message=Turn.assistant([TextPart(text)]),
            finish_reason="stop",
            usage=Usage(input_tokens=1, output_tokens=1),
        )

    def __deepcopy__(self, memo):
        return self

    def dump_state(self):
        return {}

    @classmethod
    def load_state(cls, state):
        return cls(lambda system, user: "")


class _OldLM(dspy.BaseLM):
    """The same for DSPy before it had engines."""

    def __init__(self, engine: RuleEngine) -> None:
        super().__init__(model="rule/test", model_type="chat", cache=False)
        self.engine = engine

    def forward(self, prompt=None, messages=None, **kwargs):
        turns = messages or [{"role": "user", "content": prompt}]
        system = "".join(turn["content"] for turn in turns if turn["role"] == "system")
        self.engine.num_calls += 1
        texts = [self.engine.answer(system, turns[-1]["content"]) for _ in range(kwargs.get("n") or 1)]
        choices = [
            SimpleNamespace(message=SimpleNamespace(content=text), finish_reason="stop") for text in texts
        ]
        return SimpleNamespace(choices=choices, usage={}, model=self.model)


def rule_lm(answer: Answer) -> dspy.BaseLM:
    """A task LM that answers by a rule; `lm.engine.num_calls` counts."""
    engine = RuleEngine(answer)
    return dspy.LM("rule/test", engine=engine, cache=False) if HAS_ENGINES else _OldLM(engine)


HAS_ENGINES = importlib.util.find_spec("dspy.lm15") is not None


NUM_EXAMPLES = 16
WORDS = ("warm", "five", "best")
"""Each of these in an instruction lets the task LM answer five more of the examples."""


def obey(system: str, user: str) -> str:
    """Echo the review if the instruction is good enough for it."""
    number = int(re.findall(r"\d+", user)[-1])
    able = number < 5 * sum(word in system for word in WORDS)
    return f"y{number}" if able else "no"


def reviews(count: int = NUM_EXAMPLES) -> list[dspy.Example]:
    """Examples 0, 1, ...: `review="0", rating="y0"`."""
    return [dspy.Example(review=str(n), rating=f"y{n}").with_inputs("review") for n in range(count)]


def exact(example, prediction, trace=None, pred_name=None, pred_trace=None):
    """A metric of GEPA's five arguments."""
    return float(example.rating == prediction.rating)
