"""What a machine offers: versions, devices, memory, a served model, and which extras are installed."""

from __future__ import annotations

import os
import platform
import re
from importlib import metadata, util
from typing import Any

import httpx

from dspy_diffusion_infill.serving.calling import through_proxies
from dspy_diffusion_infill.serving.connect import DEFAULT_URL, KEY_VARIABLE, URL_VARIABLE

DISTRIBUTION = "dspy-diffusion-infill"
NAMED = (DISTRIBUTION, "dspy", "torch", "transformers", "vllm")
"""Distributions whose versions matter most."""
PURPOSES = {
    "cli": "this command line",
    "engine": "a model in this process",
    "train": "to train an infiller; data from the hub",
    "serve": "to serve a model",
    "ray": "to serve it from many machines",
    "bench": "judges' agreement with people, benchmarks",
}
"""What each extra is for."""
TIMEOUT_S = 3.0


def versions() -> dict[str, str | None]:
    """Of Python and of what matters most; None for what is not installed."""
    return {"python": platform.python_version(), **{name: _version(name) for name in NAMED}}


def devices() -> list[dict[str, Any]]:
    """What models can run on: the processor, and what torch sees besides; memory in bytes, if known."""
    found: list[dict[str, Any]] = [
        {"device": "cpu", "name": f"{os.cpu_count()} cores, {platform.machine()}", "memory": _memory()}
    ]
    if util.find_spec("torch") is None:
        return found
    try:
        import torch
    except (ImportError, OSError) as error:  # a broken installation is what is looked for here
        return [*found, {"device": "torch", "name": f"does not load: {error}", "memory": None}]
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        name = torch.cuda.get_device_name(number)
        found.append({"device": f"cuda:{number}", "name": name, "memory": total, "free": free})
    if torch.backends.mps.is_available():
        found.append({"device": "mps", "name": "Apple GPU, in the processor's memory", "memory": _memory()})
    return found


def served() -> dict[str, str | None]:
    """The server that an optimizer would use: its URL, its model, and what is wrong."""
    url = (os.environ.get(URL_VARIABLE) or DEFAULT_URL).rstrip("/")
    try:
        key = os.environ.get(KEY_VARIABLE)
        headers = {"authorization": f"Bearer {key}"} if key else {}
        answer = httpx.get(
            f"{url}/v1/models",
            headers=headers,
            timeout=TIMEOUT_S,
            trust_env=through_proxies(url),
        )
        answer.raise_for_status()
        card = answer.json()["data"][0]
        model, wrong = f"{card['id']} ({card['fingerprint']})", None
    except httpx.HTTPStatusError as error:
        model, wrong = None, f"it answers with HTTP status {error.response.status_code}"
    # these quote what could not be sent: the key, or the URL with its password
    except (httpx.LocalProtocolError, httpx.InvalidURL, UnicodeEncodeError) as error:
        model, wrong = None, f"{type(error).__name__}: look at {URL_VARIABLE} and {KEY_VARIABLE}"
    except httpx.HTTPError as error:
        model, wrong = None, str(error) or type(error).__name__
    except (ValueError, LookupError, TypeError):
        model, wrong = None, "what answers is no infiller"
    return {"url": _without_password(url), "model": model, "error": wrong}


def missing() -> dict[str, list[str]]:
    """By extra, the distributions of it that are not installed; none for an extra that is."""
    needs = metadata.requires(DISTRIBUTION) or []
    return {extra: [name for name in _names(needs, extra) if _version(name) is None] for extra in PURPOSES}


def _without_password(url: str) -> str:
    """A URL without user and password."""
    return re.sub(r"^(\w+://)?.*@", r"\1", url, flags=re.DOTALL)


def _names(needs: list[str], extra: str) -> list[str]:
    """The distributions that an extra brings, those of extras within it included."""
    names: list[str] = []
    for need in needs:
        # such as: dspy-diffusion-infill[engine,serve]>=1; extra == 'all'
        found = re.match(r"([\w.-]+)(?:\[([^]]*)])?.*extra == ['\"](.*?)['\"]", need)
        if found is None or found[3] != extra:
            continue
        within = [name for inner in (found[2] or "").split(",") for name in _names(needs, inner.strip())]
        names += within if found[1] == DISTRIBUTION else [found[1]]
    return names


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _memory() -> int | None:
    """Of the whole machine, in bytes."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not on every system
        return None
