"""A server that speaks as much of vLLM's interface as judges use, from a script; also run as if vLLM."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Answer = tuple[int, Any]
"""Status, and what is sent: JSON, or bytes as they are."""


def completion(*texts: str, finish: str = "stop", logprobs: Any = None) -> Answer:
    """A chat completion, as vLLM sends it."""
    choices = [
        {
            "index": number,
            "message": {"role": "assistant", "content": text},
            "finish_reason": finish,
            "logprobs": logprobs,
        }
        for number, text in enumerate(texts)
    ]
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    head = {"id": "1", "object": "chat.completion", "created": 1, "model": "m"}
    return 200, {**head, "choices": choices, "usage": usage}


class ScriptedServer(ThreadingHTTPServer):
    """Answers each chat completion by a rule; keeps what it was asked.

    `healthy = False` makes /health and completions answer 503.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self, answer: Callable[[dict[str, Any]], Answer], *, names: tuple[str, ...] = ("m",), port: int = 0
    ) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.answer, self.names, self.healthy = answer, names, True
        self.bodies: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.keys: set[str | None] = set()

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> ScriptedServer:
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: ScriptedServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        if self.path == "/v1/models":
            self.send(200, {"data": [{"id": name, "root": f"/{name}"} for name in self.server.names]})
        else:
            self.send(200 if self.server.healthy else 503, b"")

    def do_POST(self) -> None:
        self.server.asked.append(self.path)
        self.server.keys.add(self.headers["Authorization"])
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"] or 0)) or "{}")
        if not self.path.startswith("/v1/"):
            self.send(200 if "sleep" in self.server.names else 404, b"")
        elif not self.server.healthy:
            self.send(503, {"error": {"message": "away"}})
        else:
            self.server.bodies.append(body)
            self.send(*self.server.answer(body))

    def send(self, status: int, content: Any) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


def main() -> None:
    """As `python` of an environment with vLLM: say so, or serve beside a child process.

    Judges texts by the number of their words. `--die start` ends at once, `--die once` amid its 20th answer.
    """
    arguments = sys.argv[1:]
    if arguments[0] == "-c":
        sys.stdout.write('{"vllm": "0.0"}')
        return
    options = dict(zip(arguments[2::2], arguments[3::2], strict=True))
    sys.stdout.write(f"loading {options['--model']}\n")
    sys.stdout.flush()
    if options.get("--die") == "start":
        sys.exit("no such weights")
    if os.fork() == 0:  # an engine, which outlives its server unless it is ended
        threading.Event().wait(600)
    mark = Path(options["--model"], "died")
    dies = options.get("--die") == "once" and not mark.exists()

    def answer(body: dict[str, Any]) -> Answer:
        if dies and len(server.bodies) >= 20:
            mark.touch()
            os._exit(1)
        text = body["messages"][-1]["content"].split("Response to evaluate:\n")[1].split("\n")[0]
        return completion(f"[RESULT] {len(text.split())}")

    name, port = options["--served-model-name"], int(options["--port"])
    server = ScriptedServer(answer, names=(name,), port=port)
    server.serve_forever()


if __name__ == "__main__":
    main()
