"""The config files that ship for `accelerate launch` are ones that accelerate takes."""

from importlib.resources import files

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DistributedType
from accelerate.utils.launch import prepare_multi_gpu_env

FOLDER = files("dspy_diffusion_infill") / "assets" / "accelerate"
OPTIONS = set(launch_command_parser()._option_string_actions)


def unknown(config: dict) -> set[str]:
    """Settings that accelerate's launcher has no option for."""
    return {name for name in config if f"--{name}" not in OPTIONS}


@pytest.mark.parametrize(
    ("name", "kind", "part"),
    [
        ("fsdp2", DistributedType.FSDP, "fsdp_config"),
        ("deepspeed", DistributedType.DEEPSPEED, "deepspeed_config"),
    ],
)
def test_a_config_that_ships_is_one_that_accelerate_takes(name: str, kind: DistributedType, part: str):
    path = FOLDER / f"{name}.yaml"
    config = load_config_from_file(str(path))  # refuses what it does not know at the top
    assert config.distributed_type == kind
    assert config.mixed_precision == "bf16"
    assert unknown(yaml.safe_load(path.read_text())[part]) == set()
    assert unknown({"fsdp_sharding": "all"}) == {"fsdp_sharding"}
    assert "ot run on GPUs here" in path.read_text()


def test_the_fsdp2_file_makes_launched_processes_use_fsdp2():
    options = launch_command_parser().parse_args(
        ["--config_file", str(FOLDER / "fsdp2.yaml"), "--num_processes", "8", "script.py"]
    )
    completed, *_ = _validate_launch_command(options)
    assert prepare_multi_gpu_env(completed)["FSDP_VERSION"] == "2"  # older releases read it as FSDP1
