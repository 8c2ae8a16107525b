"""Processes that are killed and servers that fail: neither changes what a run finds."""

import gc
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import dspy
import litellm
import pytest

from dspy_diffusion_infill import Budget, CompactAdapter, Denoising, DiffusionInfill
from dspy_diffusion_infill.prompts.program import instructions_of
from dspy_diffusion_infill.search import failures
from tests.doubles import ScriptedInfiller, exact, obey, reviews

THREADS = 2


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_process_killed_at_any_moment_goes_on_to_the_same_end_and_loses_no_score(tmp_path):
    root = Path(__file__).parents[1]
    command = [sys.executable, "-m", "tests.chaos", str(tmp_path), "50"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found").read_text())
    runs = found["runs"]
    assert found["winner"] == {"self": "Be warm and five"}
    assert sum(run["kills"] for run in runs) == 50
    assert all(run["same"] for run in runs)
    assert [run["lost"] for run in runs] == [run["paid_twice"] for run in runs] == [0] * len(runs)
    # all that a kill can cost is what was in flight
    assert all(run["paid_in_vain"] <= THREADS * run["kills"] for run in runs)


FAULTS = ("429", "500", "stall", "empty", "broken", "cut")
SHARE = 0.2
"""Of requests that fail at first; one in five of these fails twice."""


class Server(ThreadingHTTPServer):
    """Speaks OpenAI's chat completions; which requests fail, and how, depends on their text alone."""

    daemon_threads = True

    def __init__(self, *, faulty):
        super().__init__(("127.0.0.1", 0), Handler)
        self.faulty, self.ended = faulty, threading.Event()
        self.tries, self.faults = Counter(), Counter()
        self.lock = threading.Lock()

    def fault(self, body):
        """What goes wrong with this request now; None if nothing does."""
        draw = hashlib.sha256(json.dumps(body["messages"]).encode()).digest()
        with self.lock:
            self.tries[draw] += 1
            failing = (draw[0] < SHARE * 256) + (draw[0] < SHARE / 5 * 256)
            if not self.faulty or self.tries[draw] > failing:
                return None
            fault = FAULTS[(draw[1] + self.tries[draw]) % len(FAULTS)]
            self.faults[fault] += 1
            return fault


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        system, user = (body["messages"][at]["content"] for at in (0, -1))
        message = {"role": "assistant", "content": obey(system, user)}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        answer = {"id": "1", "object": "chat.completion", "created": 1, "model": "rule"}
        text = json.dumps({**answer, "choices": [choice], "usage": usage})
        fault = self.server.fault(body)
        if fault in ("429", "500"):
            self.reply(int(fault), json.dumps({"error": {"message": "not now", "type": "server"}}))
        elif fault == "stall":
            self.server.ended.wait(5)
            self.close_connection = True
        elif fault == "cut":
            self.reply(200, text[:40], length=len(text))
            self.close_connection = True
        else:
            self.reply(200, {"empty": "", "broken": text[:40]}.get(fault, text))

    def reply(self, status, text, length=None):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text) if length is None else length))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format, *args):
        pass


@pytest.fixture
def serve():
    servers = []

    def start(*, faulty):
        server = Server(faulty=faulty)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return server

    yield start
    for server in servers:
        server.ended.set()
        server.shutdown()
        server.server_close()


def compile_against(server):
    base = f"http://127.0.0.1:{server.server_address[1]}/v1"
    lm = dspy.LM("openai/rule", api_base=base, api_key="none", cache=False, num_retries=0, timeout=1)
    optimizer = DiffusionInfill(
        exact,
        infiller=ScriptedInfiller("Be warm", "Judge", "Be warm and five", "Grade"),
        denoising=Denoising(num_candidates=3),
        budget=Budget(metric_calls=90),
    )
    student = dspy.Predict(dspy.Signature("review -> rating", "Rate the text."))
    with dspy.context(lm=lm, adapter=CompactAdapter(), num_threads=4):
        return optimizer.compile(student, trainset=reviews())


@pytest.mark.filterwarnings("ignore")  # the client's own: sockets that the server closed
def test_a_faulty_server_changes_neither_winner_nor_scores(serve, monkeypatch):
    monkeypatch.setattr(failures, "PAUSES", (0,) * 8)
    sound, faulty = serve(faulty=False), serve(faulty=True)
    first, second = compile_against(sound), compile_against(faulty)
    assert instructions_of(first) == {"self": "Be warm and five"}
    assert instructions_of(second) == instructions_of(first)
    for name in ("candidate_programs", "trial_logs"):
        assert getattr(second, name) == getattr(first, name)
    assert second.detailed_results["stop_reason"] == first.detailed_results["stop_reason"]
    assert second.detailed_results["num_failures"] == 0
    assert set(faulty.faults) == set(FAULTS)
    assert faulty.faults.total() / faulty.tries.total() > 0.15
    litellm.in_memory_llm_clients_cache.flush_cache()
    gc.collect()  # here, where what those sockets warn of is not an error
