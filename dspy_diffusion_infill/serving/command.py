"""`diffusion-infill serve`: options to a server. What serving needs is loaded when the command runs."""

from __future__ import annotations

import importlib
import math
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dspy_diffusion_infill.errors import MissingExtraError, SettingsError
from dspy_diffusion_infill.serving.keys import check_key
from dspy_diffusion_infill.serving.limits import LOOPBACK

if TYPE_CHECKING:
    from fastapi import FastAPI

KEY_VARIABLE = "DIFFUSION_INFILL_API_KEY"
IDLE_S = 5
"""A connection may stay open without a request."""


def serve(
    model: Annotated[str, typer.Option(help="A folder, a hub id, or embedded.")],
    host: Annotated[str, typer.Option(help="Beyond this machine only with --api-key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8011,
    api_key: Annotated[
        list[str] | None,
        typer.Option(envvar=KEY_VARIABLE, help="That requests must carry; may be given again."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="That requests call the model by.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps; auto: the best there is.")] = "auto",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16; auto: by device.")] = "auto",
    bits: Annotated[int | None, typer.Option(help="4 or 8: weights of so many bits.")] = None,
    memory_gb: Annotated[float | None, typer.Option(help="Of the GPU, at most.")] = None,
    batch_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens in work at a time; else by device.")
    ] = None,
    max_requests: Annotated[int, typer.Option(min=1, help="In work or waiting; beyond them 429.")] = 256,
    max_seconds: Annotated[float, typer.Option(min=1, help="For one answer; then 504.")] = 600.0,
    drain_seconds: Annotated[int, typer.Option(min=0, help="To finish in, when told to stop.")] = 30,
) -> None:
    """Serve a diffusion LM: infilling, scores, and OpenAI's API."""
    keys = _checked(api_key or [], host)
    if not math.isfinite(max_seconds):
        raise SettingsError(f"--max-seconds must be finite; got {max_seconds}.")
    _need_serving()
    from dspy_diffusion_infill.engine.model import load
    from dspy_diffusion_infill.serving.limits import Limits
    from dspy_diffusion_infill.serving.server import create_app

    typer.echo(f"Loading {model}.", err=True)
    loaded = load(model, device, dtype, bits=bits, memory_gb=memory_gb)  # pyright: ignore[reportArgumentType]
    limits = Limits(requests=max_requests, requests_per_client=max(1, max_requests // 2), seconds=max_seconds)
    served = name or (Path(model).resolve().name if Path(model).is_dir() else model)
    app = create_app(loaded, name=served, keys=keys, limits=limits, max_tokens=batch_tokens)
    _run(app, served, host, port, drain_seconds)


def _checked(keys: list[str], host: str) -> list[str]:
    if any(not key.strip() for key in keys):
        raise SettingsError("--api-key must not be empty; leave it out to ask for no key.")
    for key in keys:
        check_key("--api-key", key)
    if host not in LOOPBACK and not keys:
        raise SettingsError(
            f"host must be one of {', '.join(LOOPBACK)} without --api-key; got {host}. "
            f"Others could use the model: give --api-key, or set {KEY_VARIABLE}."
        )
    return keys


def _need_serving() -> None:
    try:
        for module in ("fastapi", "uvicorn", "prometheus_client", "torch", "transformers"):
            importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError("Serving", "serve") from error


def _run(app: FastAPI, served: str, host: str, port: int, drain_seconds: int) -> None:
    """Serve until told to stop; what was accepted is finished first."""
    import uvicorn

    from dspy_diffusion_infill.serving.connection import PunctualProtocol

    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=PunctualProtocol,
        ws="none",
        access_log=False,
        server_header=False,
        log_level="warning",
        timeout_keep_alive=IDLE_S,
        timeout_graceful_shutdown=drain_seconds,
        h11_max_incomplete_event_size=64 * 1024,
    )
    listening = config.bind_socket()
    listening.listen(config.backlog)  # who reads the line below may connect at once
    shown = f"[{host}]" if ":" in host else host
    typer.echo(
        f"Serving {served} at http://{shown}:{listening.getsockname()[1]} (its pages: /docs)", err=True
    )
    # uvicorn raises the signal again once all is done; it has been obeyed then
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    uvicorn.Server(config).run(sockets=[listening])
