"""A judge behind HTTP: what it is asked, how it is scored, and that an absent server is waited for."""

import asyncio
import copy
import threading

import pytest
from dspy.utils.exceptions import AdapterParseError

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


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(served, "PAUSES", (0.05,) * 5)


# --- what is asked


def test_a_judge_decodes_as_published_and_can_be_held_to_a_verdict():
    with ScriptedServer(lambda body: completion("Apt. [RESULT] 4")) as server:
        with serve_judge("m", url=f"{server.root}/v1/") as lm:
            assert judge(lm)(**TEXTS).score == 4
            assert judge(lm, constrained=True)(**TEXTS).score == 4
    free, held = server.bodies
    sent = {name: free[name] for name in ("model", "temperature", "top_p", "repetition_penalty", "max_tokens")}
    assert sent == {
        "model": "m", "temperature": 1.0, "top_p": 0.9, "repetition_penalty": 1.03, "max_tokens": 1024,
    }  # fmt: skip
    assert "structured_outputs" not in free
    assert held["structured_outputs"] == {
        "regex": r"[^\[]{1,1500}\[RESULT\] ((1|2|3|4)(\.[0-9]{1,2})?|5)"
    }
    assert [message["role"] for message in free["messages"]] == ["user"]


def test_scores_by_logprobs_are_means_over_tokens():
    with ScriptedServer(lambda body: completion("[RESULT] 4", logprobs=EVEN)) as server:
        with serve_judge("m", url=server.root) as lm:
            assert judge(lm, score_from="logprobs")(**TEXTS).score == pytest.approx(4.5)
    assert (server.bodies[0]["logprobs"], server.bodies[0]["top_logprobs"]) == (True, 20)


def test_a_server_that_tells_no_logprobs_is_an_error_and_no_score():
    with ScriptedServer(lambda body: completion("[RESULT] 4")) as server:
        with serve_judge("m", url=server.root) as lm, pytest.raises(EvaluationError, match="it told none"):
            judge(lm, score_from="logprobs")(**TEXTS)


def test_a_reply_whose_tokens_hold_no_score_is_unread():
    nowhere = {"content": [{"token": "[RESULT] 4", "top_logprobs": []}]}
    with ScriptedServer(lambda body: completion("[RESULT] 4", logprobs=nowhere)) as server:
        with serve_judge("m", url=server.root) as lm, pytest.raises(AdapterParseError, match="No score is"):
            judge(lm, score_from="logprobs")(**TEXTS)


def test_samples_are_as_many_requests_and_their_scores_are_averaged():
    replies = iter(["a [RESULT] 2", "no verdict", "b [RESULT] 5"])
    with ScriptedServer(lambda body: completion(next(replies))) as server:
        with serve_judge("m", url=server.root) as lm:
            found = judge(lm, samples=3)(**TEXTS)
    assert (found.score, found.scores, found.num_unread, len(server.bodies)) == (3.5, [2, 5], 1, 3)


@pytest.mark.parametrize("answer", [completion(), completion(""), completion("4")])
def test_empty_choices_and_empty_replies_are_no_score(answer):
    with ScriptedServer(lambda body: answer) as server, serve_judge("m", url=server.root) as lm:
        with pytest.raises(AdapterParseError):
            judge(lm)(**TEXTS)


# --- one name, many servers


def test_the_cache_keeps_two_servers_of_one_name_apart():
    with ScriptedServer(lambda body: completion("[RESULT] 2")) as one:
        with ScriptedServer(lambda body: completion("[RESULT] 5")) as other:
            for server, score in ((one, 2), (other, 5), (one, 2)):
                with serve_judge("m", url=server.root) as lm:
                    assert judge(lm)(**TEXTS).score == score
    assert (len(one.bodies), len(other.bodies)) == (1, 1)  # the third was cached


def test_a_server_must_hold_the_model():
    with ScriptedServer(lambda body: completion("4"), names=("one", "two")) as server:
        with pytest.raises(SettingsError, match="model must be one that .* holds, one, two; got m"):
            with serve_judge("m", url=server.root):
                pytest.fail("it was served")


def test_a_key_is_sent_with_every_request():
    with ScriptedServer(lambda body: completion("[RESULT] 2")) as server:
        with serve_judge("m", url=server.root, api_key="secret") as lm:
            judge(lm)(**TEXTS)
    assert server.keys == {"Bearer secret"}


def test_a_judge_is_saved_with_a_plain_lm_and_without_its_key(tmp_path):
    with ScriptedServer(lambda body: completion("[RESULT] 2")) as server:
        with serve_judge("m", url=server.root, api_key="secret") as lm:
            judge(lm).save(tmp_path / "judge.json")
            loaded = judge(None)
            loaded.load(tmp_path / "judge.json")
            loaded.grade.lm.kwargs["api_key"] = "secret"
            assert loaded(**TEXTS).score == 2
    assert "secret" not in (tmp_path / "judge.json").read_text()


def test_a_copied_judge_asks_the_same_server():
    with ScriptedServer(lambda body: completion("[RESULT] 2")) as server:
        with serve_judge("m", url=server.root) as lm:
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
    with ScriptedServer(lambda body: completion("[RESULT] 2")) as server:
        with serve_judge("m", url=server.root, timeout_s=60) as lm:
            timer = away_for(server, 0.5)
            assert judge(lm)(**TEXTS).score == 2
            timer.join()
    assert len(server.bodies) == 1


def test_an_async_call_waits_as_well():
    with ScriptedServer(lambda body: completion("Rain.")) as server:
        with serve_judge("m", url=server.root, timeout_s=60) as lm:
            timer = away_for(server, 0.5)
            assert asyncio.run(lm.acall("Weather?")) == ["Rain."]
            timer.join()


def test_a_server_that_stays_away_is_an_error():
    with ScriptedServer(lambda body: completion("[RESULT] 2")) as server:
        with serve_judge("m", url=server.root, timeout_s=0.3) as lm:
            server.healthy = False
            with pytest.raises(JudgeUnavailableError, match=r"No judge answers at .*/health, within 0\.3 s"):
                judge(lm)(**TEXTS)


def test_a_server_that_fails_on_one_request_alone_fails_it_in_the_end():
    with ScriptedServer(lambda body: (500, {"error": {"message": "engine fell over"}})) as server:
        with serve_judge("m", url=server.root) as lm, pytest.raises(Exception, match="engine fell over"):
            judge(lm)(**TEXTS)
    assert len(server.bodies) == 6


def test_a_request_that_is_refused_is_not_made_again():
    with ScriptedServer(lambda body: (400, {"error": {"message": "too long"}})) as server:
        with serve_judge("m", url=server.root) as lm, pytest.raises(Exception, match="too long"):
            judge(lm)(**TEXTS)
    assert len(server.bodies) == 1


def test_a_closed_server_is_waited_for_no_more():
    server = JudgeServer("http://127.0.0.1:1", timeout_s=60)
    server.close()
    with pytest.raises(JudgeUnavailableError, match="was closed"):
        server.wait_until_back()


def test_what_is_no_model_server_is_said_to_be_none():
    with ScriptedServer(lambda body: completion("4")) as server:
        server.names = ({"unhashable": 1},)
        with pytest.raises(JudgeUnavailableError, match="lists no models"):
            JudgeServer(server.root, timeout_s=5).models()
    with pytest.raises(JudgeUnavailableError, match="No judge answers at http://127.0.0.1:1/v1/models"):
        JudgeServer("http://127.0.0.1:1", timeout_s=5).models()


# --- one GPU for two


def test_a_server_sleeps_and_wakes_if_it_can():
    with ScriptedServer(lambda body: completion("4"), names=("m", "sleep")) as server:
        with serve_judge("m", url=server.root) as lm:
            lm.server.sleep(level=2)
            lm.server.wake()
    assert server.asked[-2:] == ["/sleep?level=2", "/wake_up"]
    with ScriptedServer(lambda body: completion("4")) as server, serve_judge("m", url=server.root) as lm:
        with pytest.raises(SettingsError, match="must offer /sleep; got 404"):
            lm.server.sleep()
