"""A judge behind HTTP: what it is asked, how it is scored, and that an absent server is waited for."""

import asyncio
import contextlib
import copy
import threading

import dspy
import pytest
from dspy.utils.exceptions import AdapterParseError, LMError

from dspy_diffusion_infill.errors import EvaluationError, JudgeUnavailableError, SettingsError
from dspy_diffusion_infill.judges import served
from dspy_diffusion_infill.judges.prometheus import Judge
from dspy_diffusion_infill.judges.server import JudgeServer
from dspy_diffusion_infill.judges.templates import Rubric
from dspy_diffusion_infill.judges.vllm import serve_judge
from tests.judges.scripted_server import ScriptedServer, completion

RUBRIC = Rubric("Is it short?", {1: "No.", 5: "Yes."})
TEXTS = {"response": "It rains.", "instruction": "Sum up."}
EVEN = {
    "content": [
        {"token": "[RESULT] ", "logprob": 0.0, "top_logprobs": []},
        {"token": "4", "logprob": -0.7, "top_logprobs": [{"token": t, "logprob": -0.7} for t in "45"]},
    ]
}


def judge(lm, **settings):
    return Judge(RUBRIC, template="judge-no-reference", lm=lm, **settings)


@contextlib.contextmanager
def served_by(answer, *, names=("m",), **settings):
    """A scripted server, and the judge on it."""
    with (
        ScriptedServer(answer, names=names) as server,
        serve_judge("m", url=f"{server.root}/v1/", **settings) as lm,
    ):
        yield server, lm


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(served, "PAUSES", (0.05,) * 5)


# --- what is asked


def test_a_judge_decodes_as_published_and_can_be_held_to_a_verdict():
    with served_by(lambda body: completion("Apt. [RESULT] 4")) as (server, lm):
        assert judge(lm)(**TEXTS).score == 4
        assert judge(lm, constrained=True)(**TEXTS).score == 4
    free, held = server.bodies
    sent = {
        name: free[name] for name in ("model", "temperature", "top_p", "repetition_penalty", "max_tokens")
    }
    assert sent == {
        "model": "m", "temperature": 1.0, "top_p": 0.9, "repetition_penalty": 1.03, "max_tokens": 1024,
    }  # fmt: skip
    assert "structured_outputs" not in free
    assert held["structured_outputs"] == {"regex": r"[^\[]{1,1500}\[RESULT\] ((1|2|3|4)(\.[0-9]{1,2})?|5)"}
    assert [message["role"] for message in free["messages"]] == ["user"]


def test_scores_by_logprobs_are_means_over_tokens():
    with served_by(lambda body: completion("[RESULT] 4", logprobs=EVEN)) as (server, lm):
        assert judge(lm, score_from="logprobs")(**TEXTS).score == pytest.approx(4.5)
    assert (server.bodies[0]["logprobs"], server.bodies[0]["top_logprobs"]) == (True, 20)


def test_a_server_that_tells_no_logprobs_is_an_error_and_no_score():
    with (
        served_by(lambda body: completion("[RESULT] 4")) as (_server, lm),
        pytest.raises(EvaluationError, match="it told none"),
    ):
        judge(lm, score_from="logprobs")(**TEXTS)


def test_a_reply_whose_tokens_hold_no_score_is_unread():
    nowhere = {"content": [{"token": "[RESULT] 4", "logprob": 0.0, "top_logprobs": []}]}
    with (
        served_by(lambda body: completion("[RESULT] 4", logprobs=nowhere)) as (_server, lm),
        pytest.raises(AdapterParseError, match="No score is"),
    ):
        judge(lm, score_from="logprobs")(**TEXTS)


def test_samples_are_as_many_requests_and_their_scores_are_averaged():
    replies = iter(["a [RESULT] 2", "no verdict", "b [RESULT] 5"])
    with served_by(lambda body: completion(next(replies))) as (server, lm):
        found = judge(lm, samples=3)(**TEXTS)
    assert (found.score, found.scores, found.num_unread, len(server.bodies)) == (3.5, [2, 5], 1, 3)


def test_a_judge_is_awaited_as_it_is_called():
    replies = iter(["a [RESULT] 2", "no verdict", "b [RESULT] 5", "[[ ## basis ## ]]\nA guess."])
    with served_by(lambda body: completion(next(replies))) as (server, lm):
        grader = judge(lm, samples=3)
        found = asyncio.run(grader.acall(**TEXTS))
        with dspy.context(lm=lm, adapter=grader.adapter):  # what else is asked is laid out by DSPy
            other = asyncio.run(dspy.Predict("response -> basis").acall(response="Rain."))
    assert (found.score, found.scores, found.num_unread, other.basis) == (3.5, [2, 5], 1, "A guess.")
    assert "###Task Description" in server.bodies[0]["messages"][0]["content"]


@pytest.mark.parametrize("answer", [completion(), completion(""), completion("4")])
def test_empty_choices_and_empty_replies_are_no_score(answer):
    with served_by(lambda body: answer) as (_, lm), pytest.raises((AdapterParseError, LMError)):
        judge(lm)(**TEXTS)


# --- one name, many servers


def test_the_cache_keeps_two_servers_of_one_name_apart():
    with (
        served_by(lambda body: completion("[RESULT] 2")) as (one, first),
        served_by(lambda body: completion("[RESULT] 5")) as (other, second),
        serve_judge("m", url=one.root) as again,
    ):
        for lm, score in ((first, 2), (second, 5), (again, 2)):
            assert judge(lm)(**TEXTS).score == score
    assert (len(one.bodies), len(other.bodies)) == (1, 1)  # the third was cached


def test_a_server_must_hold_the_model():
    with (
        ScriptedServer(lambda body: completion("4"), names=("one", "two")) as server,
        pytest.raises(SettingsError, match=r"model must be one that .* holds, one, two; got m"),
    ):
        serve_judge("m", url=server.root).__enter__()


def test_a_key_is_sent_with_every_request():
    with served_by(lambda body: completion("[RESULT] 2"), api_key="secret") as (server, lm):
        judge(lm)(**TEXTS)
    assert server.keys == {"Bearer secret"}


def test_a_judge_is_saved_with_a_plain_lm_and_without_its_key(tmp_path):
    with served_by(lambda body: completion("[RESULT] 2"), api_key="secret") as (_server, lm):
        judge(lm).save(tmp_path / "judge.json")
        loaded = judge(None)
        loaded.load(tmp_path / "judge.json")
        assert type(loaded.grade.lm) is dspy.LM
        assert loaded.grade.lm.model == "hosted_vllm/m"
        loaded.set_lm(lm)  # DSPy loads no address from a file
        assert loaded(**TEXTS).score == 2
    assert "secret" not in (tmp_path / "judge.json").read_text()


def test_a_copied_judge_asks_the_same_server():
    with served_by(lambda body: completion("[RESULT] 2")) as (_server, lm):
        assert copy.deepcopy(lm).server is lm.server
        assert lm.copy(temperature=0.5).server is lm.server
        assert judge(lm).deepcopy()(**TEXTS).score == 2


# --- outages


def away_for(server: ScriptedServer, seconds: float) -> threading.Timer:
    server.healthy = False
    timer = threading.Timer(seconds, setattr, (server, "healthy", True))
    timer.start()
    return timer


def test_a_call_waits_for_a_server_that_is_away():
    with served_by(lambda body: completion("[RESULT] 2"), timeout_s=60) as (server, lm):
        timer = away_for(server, 0.5)
        assert judge(lm)(**TEXTS).score == 2
        timer.join()
    assert len(server.bodies) == 1


def test_an_async_call_waits_as_well():
    with served_by(lambda body: completion("Rain."), timeout_s=60) as (server, lm):
        timer = away_for(server, 0.5)
        assert asyncio.run(lm.acall("Weather?")) == ["Rain."]
        timer.join()


def test_a_server_that_stays_away_is_an_error():
    with served_by(lambda body: completion("[RESULT] 2"), timeout_s=0.3) as (server, lm):
        server.healthy = False
        with pytest.raises(JudgeUnavailableError, match=r"No judge answers at .*/health, within 0\.3 s"):
            judge(lm)(**TEXTS)


def test_a_server_that_fails_on_one_request_alone_fails_it_in_the_end():
    with (
        served_by(lambda body: (500, {"error": {"message": "engine fell over"}})) as (server, lm),
        pytest.raises(Exception, match="engine fell over"),
    ):
        judge(lm)(**TEXTS)
    assert len(server.bodies) == 6


def test_a_request_that_is_refused_is_not_made_again():
    with (
        served_by(lambda body: (400, {"error": {"message": "too long"}})) as (server, lm),
        pytest.raises(Exception, match="too long"),
    ):
        judge(lm)(**TEXTS)
    assert len(server.bodies) == 1


def test_a_closed_server_is_waited_for_no_more():
    server = JudgeServer("http://127.0.0.1:1", timeout_s=60)
    server.close()
    with pytest.raises(JudgeUnavailableError, match="was closed"):
        server.wait_until_back()


def test_an_address_with_a_password_is_refused_without_showing_it():
    with pytest.raises(SettingsError, match="url must hold no user or password") as refusal:
        serve_judge("m", url="http://user:PASSWORD@127.0.0.1:1/v1", timeout_s=0.3).__enter__()
    assert "PASSWORD" not in str(refusal.value)


def test_a_proxy_is_not_asked_for_what_is_on_this_machine(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with ScriptedServer(lambda body: completion("4")) as server:
        judge_server = JudgeServer(server.root, timeout_s=5)
        assert judge_server.is_healthy()
        assert judge_server.models()
        elsewhere = JudgeServer("http://192.0.2.1:8000", timeout_s=5)
        with pytest.raises(JudgeUnavailableError, match="refused"):
            elsewhere.models()


@pytest.mark.parametrize("url", ["localhost:8000", "http://localhost:99999", "http://[::1", "http://", ""])
def test_what_is_no_address_is_refused_before_it_is_waited_for(url):
    with pytest.raises(SettingsError, match=r"url must be an address such as .*; got '"):
        JudgeServer(url, timeout_s=60)


def test_what_is_no_model_server_is_said_to_be_none():
    with ScriptedServer(lambda body: completion("4")) as server:
        server.names = ({"unhashable": 1},)
        with pytest.raises(JudgeUnavailableError, match="lists no models"):
            JudgeServer(server.root, timeout_s=5).models()
    with pytest.raises(JudgeUnavailableError, match=r"No judge answers at http://127.0.0.1:1/v1/models"):
        JudgeServer("http://127.0.0.1:1", timeout_s=5).models()


# --- one GPU for two


def test_a_server_sleeps_and_wakes_if_it_can():
    with served_by(lambda body: completion("4"), names=("m", "sleep")) as (server, lm):
        lm.server.sleep(level=2)
        lm.server.wake()
    assert server.asked[-2:] == ["/sleep?level=2", "/wake_up"]
    with (
        served_by(lambda body: completion("4")) as (_, lm),
        pytest.raises(SettingsError, match="must offer /sleep; got 404"),
    ):
        lm.server.sleep()
