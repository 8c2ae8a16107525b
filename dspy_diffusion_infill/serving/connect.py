"""From what a user names to an infiller."""

from __future__ import annotations

import importlib
import importlib.util
import os
from dataclasses import replace

import httpx

from dspy_diffusion_infill.errors import InfillerUnavailableError, MissingExtraError, SettingsError
from dspy_diffusion_infill.prompts.canvas import Denoising, Infiller
from dspy_diffusion_infill.serving.calling import shown
from dspy_diffusion_infill.serving.client import RemoteInfiller

URL_VARIABLE = "DIFFUSION_INFILL_URL"
KEY_VARIABLE = "DIFFUSION_INFILL_API_KEY"
DEFAULT_URL = "http://127.0.0.1:8011"


def connect(infiller: str | os.PathLike[str] | Infiller | None, denoising: Denoising) -> Infiller:
    """Find or load an infiller.

    A server is sent the key in `DIFFUSION_INFILL_API_KEY`, if there is one.

    Args:
        infiller: None for the served model (the URL in `DIFFUSION_INFILL_URL`, else `http://127.0.0.1:8011`);
            a URL; a path or hub id, loaded in this process; "embedded" for the toy model in the package; or
            an infiller, which keeps its own settings.
        denoising: How masks are turned into text.

    Raises:
        InfillerUnavailableError: If no served model answers.
        ModelError: If a path or hub id cannot be loaded.
        MissingExtraError: If a model is to be loaded here without torch and transformers.
    """
    if infiller is None:
        return _served(denoising)
    if isinstance(infiller, str | os.PathLike):
        name = os.fspath(infiller)
        remote = name.startswith(("http://", "https://"))
        return _remote(name, denoising) if remote else _loaded(name, denoising)
    if isinstance(infiller, Infiller) and not isinstance(infiller, type):
        return _own(infiller, denoising)
    raise SettingsError(f"infiller must be None, a URL, a path, a hub id or an Infiller; got {infiller!r}.")


def _own(infiller: Infiller, denoising: Denoising) -> Infiller:
    plain = Denoising()  # `DiffusionInfill.paper` names a cache mode beside any infiller
    if replace(denoising, num_candidates=plain.num_candidates, cache=plain.cache) != plain:
        raise SettingsError(
            "denoising may set num_candidates alone where infiller is an Infiller, which keeps its own "
            f"settings; got {denoising}. Set the others on the {type(infiller).__name__} itself."
        )
    return infiller


def _remote(url: str, denoising: Denoising) -> Infiller:
    return RemoteInfiller(url, api_key=os.environ.get(KEY_VARIABLE) or None, denoising=denoising)


def _served(denoising: Denoising) -> Infiller:
    url = os.environ.get(URL_VARIABLE) or DEFAULT_URL
    try:
        return _remote(url, denoising)
    except InfillerUnavailableError as error:
        if not isinstance(error.__cause__, httpx.TransportError):  # something answers, and was told what
            raise
        raise InfillerUnavailableError(
            f"No served model answers at {shown(url)}. Serve one (diffusion-infill serve --model MODEL) and "
            f"set {URL_VARIABLE} if it is elsewhere; or load one here with infiller='path or hub id'; or try "
            "the embedded toy model with infiller='embedded'."
        ) from error


def _loaded(name: str, denoising: Denoising) -> Infiller:
    for module in ("torch", "transformers", "safetensors"):
        if importlib.util.find_spec(module) is None:
            raise MissingExtraError(f"Loading the infiller {name!r} in this process", "engine")
    # imported by name, so that no module imports both dspy and torch
    model = importlib.import_module("dspy_diffusion_infill.engine.model").load(name)
    return importlib.import_module("dspy_diffusion_infill.engine.infiller").DiffusionInfiller(
        model, denoising
    )
