"""The server on Ray Serve: replicas of one model, on one machine or many.

    serve run dspy_diffusion_infill.serving.ray_app:app model=GSAI-ML/LLaDA-8B-Instruct gpus=1 replicas=2

What Ray brings is loaded when the application is built.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dspy_diffusion_infill.errors import MissingExtraError, SettingsError
from dspy_diffusion_infill.serving.limits import Limits

if TYPE_CHECKING:
    from fastapi import FastAPI

KEY_VARIABLE = "DIFFUSION_INFILL_API_KEY"
"""An argument would be shown on Ray's dashboard."""


class Settings(BaseModel):
    """The application's arguments; those that `diffusion-infill serve` has too mean the same.

    Example:
        >>> Settings(model="embedded", replicas="2").replicas
        2
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    model: str = "embedded"
    name: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    bits: int | None = None
    memory_gb: float | None = None
    batch_tokens: int | None = Field(None, ge=1)
    max_requests: int = Field(256, ge=1)
    """Of one replica, in work or waiting; and as many again wait in Ray's proxy."""
    max_seconds: float = Field(600.0, ge=1)
    drain_seconds: float = Field(30.0, ge=0)
    """For a replica to finish what it has, when it is stopped or there are too many."""
    replicas: int = Field(1, ge=1)
    max_replicas: int | None = Field(None, ge=1)
    """If set, Ray adds replicas up to this while they are busy, and never goes below `replicas`."""
    target_requests: float = Field(16.0, gt=0)
    """Of one replica: with more, Ray adds one."""
    cpus: float = Field(1.0, ge=0)
    """Of one replica; its threads as well."""
    gpus: float = Field(0.0, ge=0)
    """Of one replica; the model is spread over several."""


def app(arguments: dict[str, Any]) -> Any:
    """Build the application, as `serve run` and `serve deploy` do.

    A key is always asked for, since others may reach a cluster: whatever `DIFFUSION_INFILL_API_KEY` holds
    where this is run, several with blanks between them.

    Args:
        arguments: Values for `Settings`, which may be texts.

    Returns:
        A Ray Serve application.

    Raises:
        SettingsError: If an argument breaks its rule, or there is no key.
        MissingExtraError: If Ray Serve is not installed.

    Example:
        >>> serve.run(app({"model": "embedded", "replicas": 2}))  # doctest: +SKIP
    """
    settings, keys = read_settings(arguments), read_keys(os.environ)
    try:
        serve = importlib.import_module("ray.serve")
    except ImportError as error:
        raise MissingExtraError("Serving on Ray", "ray") from error

    def build() -> FastAPI:
        return replica(settings, keys)

    return serve.deployment(serve.ingress(build)(), **deployment_options(settings)).bind()


def read_settings(arguments: Mapping[str, Any]) -> Settings:
    """Check the application's arguments.

    Raises:
        SettingsError: If one breaks its rule, or is not known.
    """
    if "api_key" in arguments:
        raise SettingsError(f"A key must be in {KEY_VARIABLE}, not among the arguments, which Ray shows.")
    try:
        settings = Settings.model_validate(dict(arguments))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        got = f"; got {first['input']!r}" if name in Settings.model_fields else ""  # else it may be a key
        raise SettingsError(f"{name}: {first['msg']}{got}. See docs/serving.md.") from None
    if settings.max_replicas is not None and settings.max_replicas < settings.replicas:
        raise SettingsError(
            f"max_replicas must be at least replicas, {settings.replicas}; got {settings.max_replicas}."
        )
    return settings


def read_keys(environment: Mapping[str, str]) -> list[str]:
    """The keys, one of which every request must carry.

    Raises:
        SettingsError: If there is none.
    """
    keys = environment.get(KEY_VARIABLE, "").split()
    if not keys:
        raise SettingsError(
            f"{KEY_VARIABLE} must hold a key on Ray, where others may reach the model; got none. "
            "Set it where 'serve run' is called, and where clients are."
        )
    return keys


def deployment_options(settings: Settings) -> dict[str, Any]:
    """What Ray is told about replicas."""
    options: dict[str, Any] = {
        "name": "diffusion-infill",
        "max_ongoing_requests": settings.max_requests,
        "max_queued_requests": settings.max_requests,
        "graceful_shutdown_timeout_s": settings.drain_seconds,
        "ray_actor_options": {"num_cpus": settings.cpus, "num_gpus": settings.gpus},
    }
    if settings.max_replicas is None:
        return {**options, "num_replicas": settings.replicas}
    scaling = {
        "min_replicas": settings.replicas,
        "max_replicas": settings.max_replicas,
        "target_ongoing_requests": settings.target_requests,
    }
    return {**options, "autoscaling_config": scaling}


def replica(settings: Settings, keys: Sequence[str]) -> FastAPI:
    """Load the model, in the process of a replica, and serve it; what is counted goes to Ray's metrics."""
    from dspy_diffusion_infill.engine.model import load
    from dspy_diffusion_infill.serving.metrics import Metrics
    from dspy_diffusion_infill.serving.ray_metrics import mirror
    from dspy_diffusion_infill.serving.server import create_app

    model: Any = load(
        settings.model,
        settings.device,
        settings.dtype,  # pyright: ignore[reportArgumentType]
        bits=settings.bits,  # pyright: ignore[reportArgumentType]
        memory_gb=settings.memory_gb,
    )
    # Ray knows no clients: a replica takes all that Ray gives it, and is fair within
    limits = Limits(
        requests=settings.max_requests,
        requests_per_client=max(1, settings.max_requests // 2),
        seconds=settings.max_seconds,
    )
    folder = Path(settings.model)
    served = settings.name or (folder.resolve().name if folder.is_dir() else settings.model)
    metrics = Metrics()
    mirror(metrics)
    return create_app(
        model, name=served, keys=keys, limits=limits, max_tokens=settings.batch_tokens, metrics=metrics
    )
