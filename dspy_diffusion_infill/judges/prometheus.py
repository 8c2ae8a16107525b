"""Absolute grading by a judge LM, as a DSPy program whose instructions an optimizer can edit."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any, Literal

import dspy
from dspy.signatures.signature import make_signature
from dspy.utils.exceptions import AdapterParseError

from dspy_diffusion_infill.checks import check_whole
from dspy_diffusion_infill.errors import EvaluationError, SettingsError, Unscored
from dspy_diffusion_infill.judges import templates
from dspy_diffusion_infill.judges.adapter import JudgeAdapter, no_verdict
from dspy_diffusion_infill.judges.constraint import reply_pattern
from dspy_diffusion_infill.judges.expected import TOP_TOKENS, check_scale, expected_score, read_tokens
from dspy_diffusion_infill.judges.parse import Scale
from dspy_diffusion_infill.judges.templates import Rubric
from dspy_diffusion_infill.prompts.program import signature_of
from dspy_diffusion_infill.search.fingerprint import digest
from dspy_diffusion_infill.search.metrics import Verdict


class Judge(dspy.Module):
    """Grades a text with a judge LM.

    The instructions of its one predictor, `grade`, hold the task description and the rubric, with a place for
    each text that is judged; optimizers edit them like those of any program. The prompt is then laid out by
    the judge's own adapter, so that a model fine-tuned for the published prompt gets it to the letter: give
    that adapter to an optimizer as well, with `dspy.context(adapter=judge.adapter)`.

    Source: Prometheus (arXiv:2310.08491) and Prometheus 2 (arXiv:2405.01535), absolute grading; the prompt as
    in arXiv:2604.03677, App. J. Differs from prometheus-eval: scores are floats on the rubric's own scale; a
    judge is asked as often as `samples` says and never again until it answers well; a reply without a verdict
    is left out of the mean, counted in `num_unread`.

    Args:
        rubric: What is judged. Templates that tell it in their own words need none.
        template: Name of a template in `assets/judges.toml`.
        conversation: Name of a conversation form there; None for the template's usual one.
        lm: The judge; None for the LM in force.
        samples: Replies to ask for; their scores are averaged.
        constrained: Whether the server may write nothing but a reply with a verdict, and does so by vLLM's
            `structured_outputs`. Other servers may ignore that, or refuse it.
        score_from: `reply`, the score that was written; or `logprobs`, the mean of the scores that could have
            stood there, by their probabilities, from a server that tells them.
        seed: Of the replies, where the LM samples: DSPy's cache gives another seed other replies.

    Raises:
        SettingsError: If a setting breaks its rule.

    Example:
        >>> judge = Judge(Rubric("Is it short?", {1: "No.", 5: "Yes."}), template="judge-no-reference")
        >>> judge.grade.signature.instructions.splitlines()[-3:]
        ['[Is it short?]', 'Score 1: No.', 'Score 5: Yes.']
    """

    def __init__(
        self,
        rubric: Rubric | None = None,
        *,
        template: str = "judge",
        conversation: str | None = None,
        lm: dspy.BaseLM | None = None,
        samples: int = 1,
        constrained: bool = False,
        score_from: Literal["reply", "logprobs"] = "reply",
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_whole({"samples": samples, "seed": seed})
        if samples < 1:
            raise SettingsError(f"samples must be at least 1; got {samples}.")
        if score_from not in ("reply", "logprobs"):
            raise SettingsError(f"score_from must be 'reply' or 'logprobs'; got {score_from!r}.")
        told = _told(template, rubric)
        form = templates.conversation(conversation or told.conversation)
        self.adapter = JudgeAdapter(told, form)
        self.rubric, self.samples, self.seed, self.score_from = rubric, samples, seed, score_from
        self.options = self._options(constrained)
        self.identity = digest([told, form, self.options])
        fields: dict[str, Any] = {name: (str, dspy.InputField()) for name in told.fields}
        outputs = {"feedback": (str, dspy.OutputField()), "score": (float, dspy.OutputField())}
        self.grade = dspy.Predict(make_signature(fields | outputs, told.text))
        self.grade.lm = lm

    @property
    def scale(self) -> Scale:
        """What its scores are on."""
        return self.adapter.scale

    def forward(
        self,
        *,
        response: str,
        instruction: str | None = None,
        reference_answer: str | None = None,
        source: str | None = None,
    ) -> dspy.Prediction:
        """Grade one response; what the template has no place for is not shown.

        Returns:
            `score`, the mean of what was read; `feedback`, that of the reply nearest to it; `scores`; and
            `num_unread`, the replies without a verdict.

        Raises:
            SettingsError: If something is not given that the template has a place for.
            AdapterParseError: If no reply holds a verdict.
        """
        values = self._shown(response, instruction, reference_answer, source)
        found: list[Verdict | AdapterParseError] = []
        with dspy.context(adapter=self.adapter):
            for sample in range(self.samples):
                try:
                    found.append(self._verdict(self.grade(**values, config=self._config(sample))))
                except AdapterParseError as error:
                    found.append(error)
        return _mean(found)

    async def aforward(
        self,
        *,
        response: str,
        instruction: str | None = None,
        reference_answer: str | None = None,
        source: str | None = None,
    ) -> dspy.Prediction:
        """`forward`, for `await judge.acall(...)`."""
        values = self._shown(response, instruction, reference_answer, source)
        found: list[Verdict | AdapterParseError] = []
        with dspy.context(adapter=self.adapter):
            for sample in range(self.samples):
                try:
                    found.append(self._verdict(await self.grade.acall(**values, config=self._config(sample))))
                except AdapterParseError as error:
                    found.append(error)
        return _mean(found)

    def _shown(self, *texts: str | None) -> dict[str, Any]:
        """What the template has a place for."""
        given = dict(zip(("response", "instruction", "reference_answer", "source"), texts, strict=True))
        values = {name: given[name] for name in self.adapter.template.fields}
        if missing := [name for name, value in values.items() if value is None]:
            raise SettingsError(
                f"{missing[0]} must be given: the judge's template has a place for it; got None."
            )
        return values

    def _verdict(self, found: dspy.Prediction) -> Verdict:
        return Verdict(self._score(found), found.feedback)

    def _score(self, found: dspy.Prediction) -> float:
        if found.get("score") is None:
            reason = Unscored("The server sent no reply.")
            raise no_verdict(signature_of(self.grade), "", reason) from reason
        if self.score_from == "reply":
            return found.score
        tokens = read_tokens(found.get("logprobs"))
        if not tokens:
            raise EvaluationError("score_from='logprobs' needs a server that tells logprobs; it told none.")
        try:
            return expected_score(tokens, self.scale, self.adapter.template.form)
        except Unscored as reason:
            reply = "".join(token.text for token in tokens)
            raise no_verdict(signature_of(self.grade), reply, reason) from reason

    def _options(self, constrained: bool) -> dict[str, Any]:
        """What a request holds beside the prompt and the LM's own options."""
        options: dict[str, Any] = {}
        if constrained:
            pattern = reply_pattern(self.scale, self.adapter.template.form)
            options["structured_outputs"] = {"regex": pattern}
        if self.score_from == "logprobs":
            check_scale(self.scale)
            options |= {"logprobs": True, "top_logprobs": TOP_TOKENS}
        return options

    def _config(self, sample: int) -> dict[str, Any]:
        """DSPy's cache tells replies to one prompt apart by a number; the first is plain."""
        number = self.seed * self.samples + sample
        return {**self.options, **({"rollout_id": number} if number else {})}


def _mean(found: Sequence[Verdict | AdapterParseError]) -> dspy.Prediction:
    """The judgement that replies make together."""
    verdicts = [each for each in found if isinstance(each, Verdict)]
    failures = [each for each in found if isinstance(each, AdapterParseError)]
    if not verdicts:
        raise failures[-1]
    scores = [verdict.score for verdict in verdicts]
    score = fmean(scores)
    nearest = min(verdicts, key=lambda verdict: abs(verdict.score - score))
    return dspy.Prediction(score=score, feedback=nearest.feedback, scores=scores, num_unread=len(failures))


def _told(name: str, rubric: Rubric | None) -> templates.JudgeTemplate:
    """A template with a rubric that it has a place for, and that has no places itself."""
    template = templates.template(name)
    told = template.with_rubric(rubric)
    if rubric is not None and template.scale is not None:
        raise SettingsError(f"rubric must be None: the template {name!r} tells its own; got {rubric}.")
    places = [f"{{{field}}}" for field in told.fields]
    if rubric is not None and (held := [place for place in places if place in rubric.text]):
        raise SettingsError(f"rubric must not hold {held[0]}, the place of what is judged; got {rubric}.")
    return told


def judge_lm(model: str, *, api_base: str, conversation: str = "v2", cache: bool = True) -> dspy.LM:
    """A judge on a vLLM server, decoding as its authors do.

    DSPy's cache knows a model by its name alone: two servers with one model name would share answers, so turn
    the cache off for one of them.

    Args:
        model: As the server names it.
        api_base: The server's address, with `/v1`.
        conversation: Whose decoding to use.
        cache: Whether DSPy caches replies.

    Example:
        >>> judge_lm("prometheus-eval/prometheus-7b-v2.0", api_base="http://localhost:8000/v1").kwargs["top_p"]
        0.9
    """
    decoding = templates.conversation(conversation).decoding
    return dspy.LM(f"hosted_vllm/{model}", api_base=api_base, cache=cache, **decoding)
