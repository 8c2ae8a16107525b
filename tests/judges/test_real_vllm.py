"""Judges on a real vLLM server, on a CPU: a tiny Mistral with random weights, so only the plumbing counts.

`make vllm` runs these. They share one server; the last test kills it.
"""

import os
import re
import signal
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import dspy
import httpx
import pytest
from dspy.utils.callback import BaseCallback
from dspy.utils.exceptions import AdapterParseError

from dspy_diffusion_infill.errors import Unscored
from dspy_diffusion_infill.judges.grading import grade
from dspy_diffusion_infill.judges.metrics import JudgeMetric
from dspy_diffusion_infill.judges.prometheus import Judge
from dspy_diffusion_infill.judges.served import ServedLM
from dspy_diffusion_infill.judges.templates import Rubric
from dspy_diffusion_infill.judges.vllm import serve_judge

pytestmark = pytest.mark.vllm

RUBRIC = Rubric("Is it short?", {1: "No.", 5: "Yes."})
TEXTS = {"response": "It rains.", "source": "It rains all day."}
FLAGS = ("--enforce-eager", "--max-model-len", "8192", "--logprobs-mode", "processed_logprobs")
ENV = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "PYTHONDONTWRITEBYTECODE": "",  # where it is set, each process compiles all that it imports
}


@pytest.fixture(scope="module")
def lm(vllm_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedLM]:
    from tests.judges.tiny_mistral import make_judge  # brings torch, which the others do without

    folder = tmp_path_factory.mktemp("judge")
    judge = make_judge(folder / "tiny-mistral")
    with serve_judge(judge, python=vllm_python, flags=FLAGS, env=ENV) as lm:
        yield lm


def scorer(lm: ServedLM, **settings) -> Judge:
    """Answers with a score alone, which is quick."""
    return Judge(template="geval-coherence", lm=lm, constrained=True, **settings)


def num_answered(lm: ServedLM) -> int:
    """Requests that the server's own metrics count as answered."""
    with urllib.request.urlopen(f"{lm.server.root}/metrics") as answer:
        text = answer.read().decode()
    counts = re.findall(r"^vllm:request_success_total\{[^}]*\} ([\d.e+]+)$", text, re.MULTILINE)
    return round(sum(map(float, counts)))


class Replies(BaseCallback):
    """What the judge said of each day, and when that came."""

    def __init__(self) -> None:
        self.days: dict[str, int] = {}
        self.came: list[tuple[int, str, float]] = []

    def on_lm_start(self, call_id, instance, inputs) -> None:
        self.days[call_id] = int(re.search(r"Day (\d+)\.", str(inputs))[1])

    def on_lm_end(self, call_id, outputs, exception=None) -> None:
        if exception is None:
            self.came.append((self.days[call_id], outputs[0], time.time()))


def post(lm: ServedLM, path: str, **body) -> httpx.Response:
    return httpx.post(f"{lm.server.root}{path}", json={"model": "tiny-mistral", **body}, timeout=120)


def test_every_judgement_is_a_request_that_the_server_counts(lm: ServedLM):
    before = num_answered(lm)
    found = scorer(lm, samples=3)(**TEXTS)
    assert len(found.scores) == 3
    assert all(1 <= score <= 5 for score in found.scores)
    assert found.score == pytest.approx(sum(found.scores) / 3)
    assert num_answered(lm) == before + 3


def test_a_reply_with_feedback_is_held_to_end_in_a_verdict(lm: ServedLM):
    roomy = lm.copy(max_tokens=4096)  # random tokens are short: 1,500 characters of feedback take many
    judge = Judge(RUBRIC, template="judge-no-reference", lm=roomy, constrained=True)
    found = judge(response="It rains.", instruction="Sum up.")
    assert 1 <= found.score <= 5
    assert found.feedback


def test_free_replies_of_a_random_model_hold_no_verdict_and_are_no_score(lm: ServedLM):
    judge = Judge(RUBRIC, template="judge-no-reference", lm=lm.copy(max_tokens=64))
    with pytest.raises(AdapterParseError, match=r"no \[RESULT\] of its own"):
        judge(response="It rains.", instruction="Sum up.")


def test_scores_by_logprobs_lie_between_those_of_the_scale(lm: ServedLM):
    found = scorer(lm, score_from="logprobs")(**TEXTS)
    assert 1 < found.score < 5
    assert not found.score.is_integer()


def test_the_prompt_is_laid_out_as_the_judge_was_trained(lm: ServedLM):
    turns = [{"role": "system", "content": "Be fair."}, {"role": "user", "content": "Rate it."}]
    chat = post(lm, "/tokenize", messages=turns).json()["tokens"]
    assert chat == post(lm, "/tokenize", prompt="[INST] Be fair.\nRate it. [/INST]").json()["tokens"]
    assert chat.count(1) == 1  # one <s>


def test_a_long_prompt_with_a_seed_does_not_end_the_engine(lm: ServedLM):
    turns = [{"role": "user", "content": "rubric " * 3000}]
    answer = post(lm, "/v1/chat/completions", messages=turns, seed=1, temperature=1.0, max_tokens=4)
    assert answer.status_code == 200
    assert answer.json()["usage"]["prompt_tokens"] > 4096
    assert lm.server.is_healthy()


def test_what_is_too_long_for_the_judge_is_unscored(lm: ServedLM):
    metric = JudgeMetric(scorer(lm), response="answer", source="text")
    example = dspy.Example(text="rubric " * 9000).with_inputs("text")
    with pytest.raises(Unscored, match="maximum context length is 8192 tokens"):
        metric(example, dspy.Prediction(answer="It rains."))


def test_64_judgements_at_once_outlive_their_server(lm: ServedLM, caplog: pytest.LogCaptureFixture):
    rain = "It rains. " * 200  # some seconds of work for the server, with no prefix to share
    days = [dspy.Example(source=f"Day {n}. {rain}", response="Rain.") for n in range(64)]
    shown = [day.with_inputs("source", "response") for day in days]
    replies = Replies()
    judge = scorer(lm.copy(cache=False, callbacks=[replies]))
    start, first = num_answered(lm), lm.server.process.pid

    def kill_amid() -> None:
        while num_answered(lm) < start + 8:
            time.sleep(0.01)
        os.kill(first, signal.SIGKILL)

    threading.Thread(target=kill_amid, daemon=True).start()
    scores = grade(judge, shown, role="record", num_threads=64)
    assert lm.server.num_restarts == 1
    assert lm.server.process.pid != first
    said = {day: float(reply) for day, reply, _ in replies.came}
    assert len(replies.came) == len(said) == 64  # each day was judged once
    assert scores == [said[n] for n in range(64)]
    assert all(1 <= score <= 5 for score in scores)
    [back] = [record.created for record in caplog.records if record.message.endswith("is back.")]
    num_late = sum(when > back for _, _, when in replies.came)
    assert 0 < num_late < 64
    assert num_answered(lm) == num_late
