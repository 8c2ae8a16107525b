"""An LM that answers whoever asks for an instruction with one that the embedded model was taught."""

from __future__ import annotations

import json
import re
import threading
from random import Random

import dspy
from dspy.lm15 import Message, Request, Response, TextPart, Usage

from dspy_diffusion_infill.training.schemes import training_instructions


class Rewriter:
    """Draws whole instructions, whatever it is told.

    Args:
        seed: Of the draws.
    """

    def __init__(self, seed: int) -> None:
        self._random, self._lock = Random(f"{seed}/rewriter"), threading.Lock()
        self._texts = [taught.text for taught in training_instructions()]

    def __deepcopy__(self, memo: dict[int, object]) -> Rewriter:
        return self

    def complete(self, request: Request) -> Response:
        """Fill every field that is asked for, in the form that is asked for."""
        with self._lock:
            text = self._random.choice(self._texts)
        system = request.system if isinstance(request.system, str) else ""
        answer = self._laid_out(system, request.messages[-1].text or "", text)
        return Response(
            id="1",
            model=request.model,
            message=Message.assistant([TextPart(answer)]),
            finish_reason="stop",
            usage=Usage(input_tokens=0, output_tokens=0),
        )

    def _laid_out(self, system: str, user: str, text: str) -> str:
        if "new_instruction" in system + user:  # GEPA's own form
            return json.dumps({"new_instruction": text})
        form = system.partition("Answer in this form:")[2]
        names = re.findall(r"^(\w+):", form, re.MULTILINE)
        return "\n".join(f"{name}: {text}" for name in names) or (f"```{text}```" if "```" in user else text)


def rewriter_lm(seed: int) -> dspy.LM:
    """The rewriter as an LM."""
    return dspy.LM(f"rewriter/{seed}", engine=Rewriter(seed), cache=False)
