"""A judge's server from a client's side: whether it answers, and how to get it back."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import httpx

from dspy_diffusion_infill.errors import JudgeUnavailableError, SettingsError
from dspy_diffusion_infill.judges.process import POLL_S, ServerProcess
from dspy_diffusion_infill.serving.calling import through_proxies

logger = logging.getLogger(__name__)

WATCH_S = 2.0
"""Between two looks at a server that nothing else asks."""


class JudgeServer:
    """A vLLM server, started here or running elsewhere.

    Args:
        root: Its address, without `/v1`.
        timeout_s: For one start, and for one outage.
        api_key: That it asks for.
        process: What runs it; None if it runs elsewhere, and is then never started or ended.
        max_restarts: How often a server that died is started anew.

    Raises:
        SettingsError: If the address is none, or holds a password, which warnings, errors and saved programs
            would show.
    """

    def __init__(
        self,
        root: str,
        *,
        timeout_s: float,
        api_key: str | None = None,
        process: ServerProcess | None = None,
        max_restarts: int = 0,
    ) -> None:
        if "@" in root.partition("://")[2].partition("/")[0]:
            raise SettingsError(
                "url must hold no user or password; got one before the @. Give api_key instead."
            )
        self.root, self.process = root.rstrip("/"), process
        self.timeout_s, self.max_restarts, self.num_restarts = timeout_s, max_restarts, 0
        _check(self.root)
        self._through_proxies = through_proxies(self.root)
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._tls = httpx.create_ssl_context()  # made once: it costs a hundred times what /health does
        self._lock, self._closed = threading.Lock(), threading.Event()

    def __deepcopy__(self, memo: dict[int, Any]) -> JudgeServer:
        return self  # a copied program asks the same server

    @property
    def url(self) -> str:
        """For clients of OpenAI's interface."""
        return f"{self.root}/v1"

    def start(self) -> None:
        """Start it here for the first time.

        Raises:
            JudgeUnavailableError: If it does not answer in time, or dies.
        """
        assert self.process is not None, "a server that runs elsewhere is not started"
        self.process.start(self.is_healthy, self.timeout_s)

    def is_healthy(self) -> bool:
        """Whether the server answers, and its engine lives."""
        try:
            return self._request("GET", "/health", 5.0).is_success
        except httpx.HTTPError:
            return False

    def models(self) -> dict[str, str]:
        """The models on the server: name -> where it was loaded from.

        Raises:
            JudgeUnavailableError: If what answers there lists no models.
        """
        answer = self._ask("GET", "/v1/models")
        try:
            return {model["id"]: model.get("root") or model["id"] for model in answer.json()["data"]}
        except (ValueError, KeyError, TypeError) as error:
            raise JudgeUnavailableError(f"What answers at {self.url} lists no models.") from error

    def wait_until_back(self, pause_s: float = 0.0) -> None:
        """Pause, then wait while the server is away; one that died here is started anew.

        Raises:
            JudgeUnavailableError: If it stays away for `timeout_s`, or died more often than `max_restarts`.
        """
        self._closed.wait(pause_s)
        with self._lock:  # one caller waits or restarts, the others wait for it
            if self._closed.is_set():
                raise JudgeUnavailableError(f"The judge's server at {self.root} was closed.")
            if self.is_healthy():
                return
            logger.warning("The judge's server at %s is away: waiting for it.", self.root)
            if self.process is None:
                self._wait_for_other()
            elif not self._recovers(self.process):
                self._restart(self.process)
            logger.warning("The judge's server at %s is back.", self.root)

    def watch(self) -> None:
        """Bring the server back whenever it dies, for as long as this process runs.

        Raises:
            JudgeUnavailableError: If it does not come back.
        """
        while not self._closed.wait(WATCH_S):
            self.wait_until_back()

    def sleep(self, level: int = 1) -> None:
        """Free the GPU: level 1 keeps the weights in main memory, level 2 drops them.

        Raises:
            SettingsError: If the server has no sleep mode.
        """
        self._ask("POST", f"/sleep?level={level}")

    def wake(self) -> None:
        """Take the GPU back after `sleep`.

        Raises:
            SettingsError: If the server has no sleep mode.
        """
        self._ask("POST", "/wake_up")

    def close(self) -> None:
        """End the server if it was started here; whoever waits for it is told."""
        self._closed.set()
        if self.process is not None:
            self.process.stop()
            with self._lock:  # a restart under way has ended
                self.process.stop()

    def _wait_for_other(self) -> None:
        deadline = time.monotonic() + self.timeout_s
        while not self.is_healthy():
            if time.monotonic() > deadline or self._closed.wait(POLL_S):
                raise JudgeUnavailableError(
                    f"No judge answers at {self.root}/health, within {self.timeout_s:g} s."
                )

    def _recovers(self, process: ServerProcess) -> bool:
        """Wait for a server that lives but does not answer; False if it dies."""
        if process.is_running():
            try:
                process.wait(self.is_healthy, self.timeout_s)
            except JudgeUnavailableError:
                if process.is_running():
                    raise
        return process.is_running()

    def _restart(self, process: ServerProcess) -> None:
        if self.num_restarts >= self.max_restarts:
            raise JudgeUnavailableError(
                f"The judge's server died more often than max_restarts, {self.max_restarts}."
                f"{process.last_lines()}"
            )
        self.num_restarts += 1
        process.start(self.is_healthy, self.timeout_s)

    def _request(self, method: str, path: str, timeout_s: float) -> httpx.Response:
        return httpx.request(
            method,
            self.root + path,
            headers=self._headers,
            verify=self._tls,
            timeout=timeout_s,
            trust_env=self._through_proxies,
        )

    def _ask(self, method: str, path: str) -> httpx.Response:
        try:
            answer = self._request(method, path, self.timeout_s)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise JudgeUnavailableError(f"No judge answers at {self.root}{path}: {error}") from error
        if answer.status_code == httpx.codes.NOT_FOUND:
            raise SettingsError(
                f"The judge's server must offer {path.partition('?')[0]}; got 404. For sleep mode start it "
                "with --enable-sleep-mode and VLLM_SERVER_DEV_MODE=1."
            )
        if answer.is_error:
            raise JudgeUnavailableError(f"{self.root}{path} answers {answer.status_code}: {answer.text}")
        return answer


def _check(root: str) -> None:
    """Refuse what is no address of a server."""
    try:
        url = httpx.URL(root)
    except httpx.InvalidURL as error:
        raise SettingsError(f"url must be an address such as http://127.0.0.1:8000; got {root!r}.") from error
    if url.scheme not in ("http", "https") or not url.host or not 0 < (url.port or 80) < 2**16:
        raise SettingsError(f"url must be an address such as http://127.0.0.1:8000; got {root!r}.")
