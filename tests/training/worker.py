"""One process of a distributed run: torchrun ... worker.py MODE CHECKPOINT DATA OUTPUT."""

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

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
    nn.utils.clip_grad_norm_ = record
    try:
        train(
            model, Batches(made, NUM_UPDATES * num_batches), folder, learning_rate=1e-4, warmup_updates=0,
            use_cpu=True, accumulation=num_batches,
        )  # fmt: skip
    finally:
        nn.utils.clip_grad_norm_ = clip
    return found


def sharded(checkpoint: str, data: str) -> list[list[Tensor]]:
    """Gradients of one update under FSDP2, each process with its own batches."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model, made = updates(checkpoint, data)  # starts the process group
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


def main(mode: str, checkpoint: str, data: str, output: str) -> None:
    found = sharded(checkpoint, data) if mode == "fsdp" else trained(checkpoint, data, Path(output + "-run"))
    if torch.distributed.get_rank() == 0:
        torch.save(found, output)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
