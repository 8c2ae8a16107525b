"""The command line and environment that serve a judge with vLLM, and what makes that judge itself."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.search.fingerprint import digest

OWN_FLAGS = ("--model", "--served-model-name", "--host", "--port", "--tensor-parallel-size", "--api-key")
"""Of vLLM: set by arguments here."""
CPU_FLAGS = ("--no-enable-chunked-prefill",)
"""On a CPU, a seeded sample of a prompt that is computed in parts ends vLLM's engine (0.32)."""
CPU_ENV = {"TORCHDYNAMO_DISABLE": "1"}
"""On a CPU, the first request for logprobs else compiles for up to 20 seconds."""
QUIET_ENV = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
SLEEP_FLAG, SLEEP_ENV = "--enable-sleep-mode", {"VLLM_SERVER_DEV_MODE": "1"}
"""vLLM offers sleep over HTTP in this mode alone."""
FIND_VLLM = """
import importlib.metadata, json
names = {each.metadata["Name"]: each.version for each in importlib.metadata.distributions()}
print(json.dumps({name: names[name] for name in names if name and name.lower().startswith("vllm")}))
"""
ADVICE = (
    "Make one with python -m venv vllm-env && vllm-env/bin/pip install vllm, and give python="
    "'vllm-env/bin/python'."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmCommand:
    """How vLLM is run.

    Args:
        model: A hub id or a folder.
        python: Of vLLM's environment.
        host: To listen on.
        port: To listen on.
        tensor_parallel_size: GPUs that share the model.
        flags: Any others of vLLM.
        chat_template: File that stands in for the model's own; None to leave that.
        on_cpu: Whether that vLLM is one for CPUs (`runs_on_cpu`).
        env: Added to this process's environment.
        api_key: That clients must send.

    Raises:
        SettingsError: If a setting breaks its rule.
    """

    model: str
    python: str
    host: str
    port: int
    tensor_parallel_size: int = 1
    flags: Sequence[str] = ()
    chat_template: Path | None = None
    on_cpu: bool = False
    env: Mapping[str, str] | None = field(default=None, repr=False)
    api_key: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.tensor_parallel_size < 1:
            raise SettingsError(f"tensor_parallel_size must be at least 1; got {self.tensor_parallel_size}.")
        if taken := [name for name in map(_name, self.flags) if name in OWN_FLAGS]:
            raise SettingsError(
                f"flags must leave {', '.join(OWN_FLAGS)} to the arguments of that name; got {taken[0]}."
            )

    @property
    def name(self) -> str:
        """What the server calls the model: its hub id, or its folder's name."""
        return Path(self.model).resolve().name if Path(self.model).is_dir() else self.model

    @property
    def address(self) -> str:
        """Where clients on this machine find the server."""
        near = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://[{near}]:{self.port}" if ":" in near else f"http://{near}:{self.port}"

    @property
    def arguments(self) -> list[str]:
        """The whole command; the API server's own module, which every build of vLLM has."""
        return [
            *(self.python, "-m", "vllm.entrypoints.openai.api_server"),
            *("--model", self.model, "--served-model-name", self.name),
            *("--host", self.host, "--port", str(self.port)),
            *("--tensor-parallel-size", str(self.tensor_parallel_size)),
            *(("--chat-template", str(self.chat_template)) if self._brings_template else ()),
            *(CPU_FLAGS if self.on_cpu else ()),
            *self.flags,
        ]

    @property
    def environment(self) -> dict[str, str]:
        """The server's, with the key, which would be seen on a command line."""
        return {
            **os.environ,
            **QUIET_ENV,
            **(CPU_ENV if self.on_cpu else {}),
            **(SLEEP_ENV if SLEEP_FLAG in map(_name, self.flags) else {}),
            **({"VLLM_API_KEY": self.api_key} if self.api_key else {}),
            **(self.env or {}),
        }

    @property
    def _brings_template(self) -> bool:
        return self.chat_template is not None and "--chat-template" not in map(_name, self.flags)


def _name(flag: str) -> str:
    """What a flag is called; vLLM takes `_` for `-`."""
    return flag.partition("=")[0].replace("_", "-")


def identity(model: str, flags: Sequence[str], conversation: str) -> str:
    """A stand-in for a judge: another model, other flags, or other files that they name give another one."""
    files = sorted(Path(model).glob("*")) if Path(model).is_dir() else []
    named = [flag.partition("=")[2] or flag for flag in flags]
    files += [Path(name) for name in named if os.path.isfile(name)]
    stamps = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return digest([model, stamps, list(flags), conversation])


def runs_on_cpu(python: str) -> bool:
    """Whether the vLLM of an environment is one for CPUs.

    Raises:
        SettingsError: If there is no such Python, or no vLLM.
    """
    try:
        answer = subprocess.run([python, "-c", FIND_VLLM], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SettingsError(f"python must be one that runs; got {python!r}: {error}. {ADVICE}") from error
    found: dict[str, str] = json.loads(answer.stdout)
    if not found:
        raise SettingsError(f"python must be of an environment with vLLM; got {python!r}. {ADVICE}")
    return any("cpu" in name.lower() or "+cpu" in version for name, version in found.items())
