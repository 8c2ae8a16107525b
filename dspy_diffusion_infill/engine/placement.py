"""Where a model's weights go, and in which precision."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import BitsAndBytesConfig

from dspy_diffusion_infill.errors import MissingExtraError, SettingsError

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Bits = Literal[4, 8]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class Placement:
    """Devices and precision of a model."""

    device: torch.device
    """Of all weights, and of what goes in; without use if there is a device map."""
    dtype: torch.dtype
    """Of the computation."""
    device_map: str | None = None
    """How accelerate spreads the layers over several devices; None for all on one."""
    bits: Bits | None = None
    """Of each weight in memory; None for those of `dtype`."""

    def __str__(self) -> str:
        """Tells apart what computes differently: precision, and bits where they are fewer."""
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{self.bits}bit:{dtype}" if self.bits else dtype

    def arguments(self) -> dict[str, Any]:
        """For `from_pretrained` of transformers; weights go to the device one by one."""
        arguments: dict[str, Any] = {"dtype": self.dtype}
        if self.device_map or self.device.type != "cpu":
            arguments["device_map"] = self.device_map or str(self.device)
        if self.bits:
            arguments["quantization_config"] = BitsAndBytesConfig(
                load_in_4bit=self.bits == 4, load_in_8bit=self.bits == 8, bnb_4bit_compute_dtype=self.dtype
            )
        return arguments


def choose_placement(device: str, dtype: Dtype, device_map: str | None, bits: Bits | None) -> Placement:
    """Resolve "auto", and see that what is asked for can be had here.

    Raises:
        SettingsError: If a setting is not known, or `bits` is set without bitsandbytes.
        MissingExtraError: If `device_map` is set without accelerate.
    """
    where = _device(device)
    if bits not in (None, 4, 8):
        raise SettingsError(f"bits must be 4, 8 or None; got {bits!r}.")
    if bits and importlib.util.find_spec("bitsandbytes") is None:
        raise SettingsError(
            f"bits must be None without bitsandbytes; got {bits}. Install it with: pip install bitsandbytes."
        )
    if device_map and importlib.util.find_spec("accelerate") is None:
        raise MissingExtraError("A device map", "engine")
    return Placement(where, _dtype(dtype, where), device_map, bits)


def check_device(device: torch.device) -> None:
    """See that a device is here, and computes.

    Raises:
        SettingsError: If it is not.
    """
    try:
        torch.empty(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise SettingsError(
            f"device must be one that computes on this machine; got '{device}', which does not. "
            "Take 'auto' or 'cpu', or install a torch that is made for it."
        ) from error


def cap_memory(device: torch.device, memory_gb: float) -> None:
    """Let this process take no more of a GPU than so many gigabytes (10^9 bytes), for what else runs there.

    Raises:
        SettingsError: If the device is no GPU, or has less.
    """
    if device.type != "cuda":
        raise SettingsError(
            f"memory_gb must be None on {device.type}; got {memory_gb}. Only a GPU has a cap."
        )
    total = torch.cuda.get_device_properties(device).total_memory
    if not 0 < memory_gb * 1e9 <= total:
        raise SettingsError(f"memory_gb must be above 0 and at most {total / 1e9:.0f}; got {memory_gb}.")
    torch.cuda.set_per_process_memory_fraction(memory_gb * 1e9 / total, device)


def _device(device: str) -> torch.device:
    if device == "auto":
        device = (
            "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
    try:
        return torch.device(device)
    except RuntimeError as error:
        raise SettingsError(
            f"device must be 'auto' or a torch device such as 'cuda:0'; got {device!r}."
        ) from error


def _dtype(dtype: str, device: torch.device) -> torch.dtype:
    if dtype == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if dtype not in _DTYPES:
        raise SettingsError(f"dtype must be 'auto', {', '.join(map(repr, _DTYPES))}; got {dtype!r}.")
    return _DTYPES[dtype]
