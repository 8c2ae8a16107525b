"""A run of two processes on this machine: `python -m tests.training.worker CHECKPOINT DATA FOLDER`.

They are launched as torchrun launches them, but forked from one that has imported everything already.
"""

import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from dspy_diffusion_infill.training import train as loop
from dspy_diffusion_infill.training.finetune import prepare
from dspy_diffusion_infill.training.loss import masked_losses
from dspy_diffusion_infill.training.settings import Settings
from dspy_diffusion_infill.training.start import read_start, read_weights
from dspy_diffusion_infill.training.train import Batches, train
from dspy_diffusion_infill.training.updates import Updates

NUM_UPDATES, NUM_BATCHES = 2, 4


def updates(checkpoint: str, data: str, num_batches: int = NUM_BATCHES) -> tuple[nn.Module, Updates]:
    settings = Settings(
        learning_rate=1e-4, batch=8, num_batches=num_batches, max_tokens=64, held_out=0, use_cpu=True
    )
    plan = prepare(read_start(checkpoint), [data], settings)
    made = Updates(plan.examples, plan.start.vocabulary, "fs", batch=8, num_batches=num_batches, seed=1)
    return read_weights(plan.start), made


def trained(checkpoint: str, data: str, folder: Path, num_batches: int = NUM_BATCHES) -> list[list[Tensor]]:
    """Gradients of every update, before they are clipped, from the loop that users run."""
    found: list[list[Tensor]] = []
    clip = nn.utils.clip_grad_norm_

    def record(parameters, *arguments, **options):
        parameters = list(parameters)
        found.append([value.grad.clone() for value in parameters])
        return clip(parameters, *arguments, **options)

    model, made = updates(checkpoint, data, num_batches)
    nn.utils.clip_grad_norm_, fast = record, loop.fast_in_bf16
    loop.fast_in_bf16 = lambda use_cpu: False  # which rounds otherwise in batches of another size
    try:
        train(
            model, Batches(made, NUM_UPDATES * num_batches), folder, learning_rate=1e-4, warmup_updates=0,
            use_cpu=True, accumulation=num_batches,
        )  # fmt: skip
    finally:
        nn.utils.clip_grad_norm_, loop.fast_in_bf16 = clip, fast
    return found


def sharded(checkpoint: str, data: str) -> list[list[Tensor]]:
    """Gradients of one update under FSDP2, each process with its own batches."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model, made = updates(checkpoint, data)
    rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    mesh = init_device_mesh("cpu", (size,))
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    batches = [made(number) for number in range(NUM_BATCHES)]
    total = sum(int((batch["labels"] != -100).sum()) for batch in batches)
    for batch in batches[rank::size]:
        losses = masked_losses(model, batch["input_ids"], batch["labels"], batch["attention_mask"])
        (losses.sum() * size / total).backward()
    return [[value.grad.full_tensor() for value in model.parameters()]]


def work(checkpoint: str, data: str, folder: str) -> None:
    """What each of the processes does; the first leaves in the folder what they found."""
    found = {"trained": trained(checkpoint, data, Path(folder, "run")), "sharded": sharded(checkpoint, data)}
    if torch.distributed.get_rank() == 0:
        torch.save(found, Path(folder, "found"))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    once = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=2, max_restarts=0, start_method="fork",
        rdzv_backend="c10d", rdzv_endpoint="localhost:0", run_id="test",
    )  # fmt: skip
    elastic_launch(once, work)(*sys.argv[1:])
