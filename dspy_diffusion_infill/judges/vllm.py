"""Judges on vLLM: a server is started in its own environment and ended, or one that runs already is used."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path

from dspy_diffusion_infill.errors import JudgeUnavailableError, SettingsError
from dspy_diffusion_infill.judges import templates
from dspy_diffusion_infill.judges.port import held_port
from dspy_diffusion_infill.judges.process import ServerProcess
from dspy_diffusion_infill.judges.served import ServedLM
from dspy_diffusion_infill.judges.server import JudgeServer
from dspy_diffusion_infill.judges.vllm_command import VllmCommand, identity, runs_on_cpu
from dspy_diffusion_infill.search.fingerprint import digest


@contextlib.contextmanager
def serve_judge(
    model: str | os.PathLike[str],
    *,
    url: str | None = None,
    python: str | os.PathLike[str] = sys.executable,
    conversation: str = "v2",
    tensor_parallel_size: int = 1,
    flags: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    host: str = "127.0.0.1",
    port: int | None = None,
    api_key: str | None = None,
    log: str | os.PathLike[str] | None = None,
    timeout_s: float = 900.0,
    max_restarts: int = 3,
    cache: bool = True,
) -> Iterator[ServedLM]:
    """Serve a judge with vLLM while a `with` block runs.

    vLLM pins its own torch and transformers: it lives in an environment of its own, which `python` names. The
    server listens on this machine alone unless `host` says otherwise, sends no statistics, and ends with the
    block, however that ends. If it dies, calls wait while it is started anew, and nothing is lost.

    Args:
        model: A hub id or a folder; with `url`, the name that the server knows it by.
        url: Of a server that runs already, with or without `/v1`; it is waited for, never started or ended.
        python: The Python of the environment that vLLM is installed in.
        conversation: Name of a form in `assets/judges.toml`: its decoding, and the chat template that the
            model was trained with, unless `flags` name a `--chat-template`. The template of `v2` also takes
            system messages, which Mistral's own refuses. `plain` leaves the model its own template.
        tensor_parallel_size: GPUs that share the model.
        flags: Any others of vLLM, such as `("--data-parallel-size", "2")`.
        env: Variables added to the server's environment.
        host: To listen on. Give an `api_key` if that is more than this machine.
        port: To listen on; None for a free one, the same for the same judge where it can be.
        api_key: That clients must send. It is not put on the command line.
        log: File for what the server prints; None for one that goes when the block ends.
        timeout_s: For one start, and for one outage.
        max_restarts: How often a server that died is started anew.
        cache: Whether DSPy caches replies.

    Yields:
        The judge, decoding as its authors do; `lm.server` can `sleep` and `wake`.

    Raises:
        SettingsError: If an argument breaks its rule, vLLM is not installed there, or the server at `url`
            does not hold the model.
        JudgeUnavailableError: If the server does not start, with the last lines of its log; or if none is at
            `url`.

    Example:
        >>> model = "prometheus-eval/prometheus-7b-v2.0"
        >>> with serve_judge(model, tensor_parallel_size=2) as lm:  # doctest: +SKIP
        ...     lm("Is it raining?")
    """
    name, form = os.fspath(model), templates.conversation(conversation)
    with contextlib.ExitStack() as stack:
        if url is not None:
            server = JudgeServer(url.rstrip("/").removesuffix("/v1"), api_key=api_key, timeout_s=timeout_s)
            judge = _held(server, name)
        else:
            judge = identity(name, flags, conversation)
            command = VllmCommand(
                model=name,
                python=os.fspath(python),
                host=host,
                port=stack.enter_context(held_port(host, port, judge)),
                tensor_parallel_size=tensor_parallel_size,
                flags=flags,
                chat_template=_template(form.chat_template, stack),
                on_cpu=runs_on_cpu(os.fspath(python)),
                env=env,
                api_key=api_key,
            )
            server = _started(command, stack, log, timeout_s, max_restarts)
            name = command.name
        yield ServedLM(
            name, server=server, identity=judge, decoding=dict(form.decoding), api_key=api_key, cache=cache
        )


def _held(server: JudgeServer, name: str) -> str:
    """Wait for a server that runs elsewhere; a stand-in for the model of that name there."""
    server.wait_until_back()
    models = server.models()
    if name not in models:
        raise SettingsError(f"model must be one that {server.root} holds, {', '.join(models)}; got {name}.")
    return digest([server.root, models[name]])


def _template(name: str | None, stack: contextlib.ExitStack) -> Path | None:
    """The file of a chat template in the package."""
    if name is None:
        return None
    file = resources.files("dspy_diffusion_infill").joinpath("assets", "chat", name)
    return stack.enter_context(resources.as_file(file))


def _started(
    command: VllmCommand,
    stack: contextlib.ExitStack,
    log: str | os.PathLike[str] | None,
    timeout_s: float,
    max_restarts: int,
) -> JudgeServer:
    """Start a server; it ends with the stack."""
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="judge-"))
    server = JudgeServer(
        command.address,
        process=ServerProcess(command.arguments, env=command.environment, log=_writable(log, folder)),
        api_key=command.api_key,
        timeout_s=timeout_s,
        max_restarts=max_restarts,
    )
    stack.callback(server.close)
    server.start()
    if command.name not in (models := server.models()):
        raise JudgeUnavailableError(
            f"What answers at {server.root} must be {command.name}; it is {', '.join(models)}."
        )
    return server


def _writable(log: str | os.PathLike[str] | None, folder: str) -> Path:
    file = Path(log) if log else Path(folder, "log")
    try:
        file.open("ab").close()
    except OSError as error:
        raise SettingsError(f"log must be a file that can be written; got {log}: {error}.") from error
    return file
