"""A judge's prompt as it was published, and its reply as a score: a DSPy adapter."""

from __future__ import annotations

import re
from typing import Any, cast

import dspy
from dspy.utils.exceptions import AdapterParseError

from dspy_diffusion_infill.errors import Unscored
from dspy_diffusion_infill.judges.parse import DELIMITER, read_reply, write_reply
from dspy_diffusion_infill.judges.templates import Conversation, JudgeTemplate
from dspy_diffusion_infill.prompts.compact import CompactAdapter

PROTOCOL = (re.compile(r"^###.*$", re.MULTILINE), DELIMITER)
"""Locks for an optimizer: the headings that a judge was fine-tuned on, and what it must write."""

OUTPUTS = {"feedback", "score"}
"""Fields that a judgement fills."""


class JudgeAdapter(CompactAdapter):
    """Lays a judge's prompt out as it was published, and reads the verdict in its reply.

    What is judged stands at its places within the instructions, in one user turn; if the template has no
    places, the instructions are the system message and what is judged the user turn (`CompactAdapter`). An
    example shows what is judged and the reply, without the instructions. What is no judgement, such as a
    question of another optimizer, goes through DSPy's own `ChatAdapter`.

    Args:
        template: With the rubric written in.
        conversation: How the judge is addressed.

    Raises:
        AdapterParseError: If a reply holds no verdict; its cause is `Unscored` with the reason.
    """

    def __init__(self, template: JudgeTemplate, conversation: Conversation) -> None:
        super().__init__()
        assert template.scale is not None, "a template without its rubric"
        self.template, self.conversation, self.scale = template, conversation, template.scale

    def __call__(
        self,
        lm: dspy.BaseLM,
        lm_kwargs: dict[str, Any],
        signature: type[dspy.Signature],
        demos: list[dict[str, Any]],
        inputs: dict[str, Any],
    ) -> list[dict[str, Any]]:
        """Ask, and read the reply."""
        if set(signature.output_fields) != OUTPUTS:
            return dspy.ChatAdapter()(lm, lm_kwargs, signature, demos, inputs)
        return super().__call__(lm, lm_kwargs, signature, demos, inputs)

    async def acall(
        self,
        lm: dspy.BaseLM,
        lm_kwargs: dict[str, Any],
        signature: type[dspy.Signature],
        demos: list[dict[str, Any]],
        inputs: dict[str, Any],
    ) -> list[dict[str, Any]]:
        """Ask, and read the reply."""
        if set(signature.output_fields) != OUTPUTS:
            return await dspy.ChatAdapter().acall(lm, lm_kwargs, signature, demos, inputs)
        return await super().acall(lm, lm_kwargs, signature, demos, inputs)

    def format(
        self, signature: type[dspy.Signature], demos: list[dict[str, Any]], inputs: dict[str, Any]
    ) -> list[dict[str, Any]]:
        """Examples first, then the turns that ask."""
        if not self.template.is_page:
            return super().format(signature, demos, inputs)
        page = self.template.page(signature.instructions, inputs)
        *system, asking = self.conversation.messages(page)
        return [*system, *self.format_demos(signature, demos), asking]

    def format_system_message(self, signature: type[dspy.Signature]) -> str:
        """The instructions, which say themselves how to answer."""
        return signature.instructions.strip()

    def format_user_message_content(
        self,
        signature: type[dspy.Signature],
        inputs: dict[str, Any],
        prefix: str = "",
        suffix: str = "",
        main_request: bool = False,
    ) -> str:
        """What is judged, each value under its heading."""
        return "\n\n".join(filter(None, [prefix, self.template.example(inputs), suffix]))

    def format_assistant_message_content(
        self,
        signature: type[dspy.Signature],
        outputs: dict[str, Any],
        missing_field_message: str | None = None,
    ) -> str:
        """The reply that gives these outputs."""
        if outputs.get("score") is None:
            return missing_field_message or ""
        return write_reply(outputs.get("feedback") or "", float(outputs["score"]), self.template.form)

    def parse(self, signature: type[dspy.Signature], completion: str) -> dict[str, Any]:
        """Read the verdict."""
        try:
            verdict = read_reply(completion, self.scale, self.template.form)
        except Unscored as reason:
            raise no_verdict(signature, completion, reason) from reason
        return {"feedback": verdict.feedback or "", "score": verdict.score}


def no_verdict(signature: type[dspy.Signature], reply: str, reason: Unscored) -> AdapterParseError:
    """The error of a reply without a verdict."""
    # DSPy annotates the signature as an instance and takes the class
    return AdapterParseError("JudgeAdapter", cast(dspy.Signature, signature), reply, str(reason))
