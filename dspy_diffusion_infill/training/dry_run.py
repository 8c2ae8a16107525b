"""What a run will take, before any weight is read."""

from __future__ import annotations

from dspy_diffusion_infill.engine.checkpoint import read_config
from dspy_diffusion_infill.training.finetune import Plan
from dspy_diffusion_infill.training.loss import MAX_LOGITS

GIB = 2**30


def dry_run(plan: Plan, *, tflops: float) -> str:
    """Estimate tokens, updates, memory and time.

    Memory is that of one process without sharding, and leaves out what the allocator wastes. Time counts 6
    operations a parameter and token, 4 if only adapters are trained, 2 more with gradient checkpointing, and
    leaves out attention, which adds little below some thousand tokens.

    Args:
        plan: From `prepare`.
        tflops: Sustained, of all processes together, in 10^12 operations a second.
    """
    lines = [f"model     {plan.start.source}: {plan.start.num_parameters / 1e9:.3g} billion parameters"]
    lines.append(f"data      {plan.counts or 'a stream, not counted'}; {len(plan.held_out)} held out")
    total = 0.0
    for stage in plan.settings.stages:
        updates, tokens = plan.num_updates(stage), _tokens(plan)
        total += updates * tokens
        lines.append(
            f"stage {stage}  {updates:,} updates of {plan.settings.batch} examples, "
            f"{updates * tokens:,.0f} tokens"
        )
    seconds = _operations(plan) * plan.start.num_parameters * total / (tflops * 1e12)
    lines.append(f"memory    {memory_gib(plan):.1f} GiB")
    lines.append(f"time      {seconds / 3600:.2g} hours at {tflops:g} TFLOP/s")
    return "\n".join(lines)


def memory_gib(plan: Plan) -> float:
    """Of weights, gradients, AdamW's two moments (4 bytes each), kept activations and logits."""
    config = read_config(plan.start.folder)
    layers = config.get("n_layers") or config["num_hidden_layers"]
    width = config.get("d_model") or config["hidden_size"]
    inner = config.get("mlp_hidden_size") or config["intermediate_size"]
    trained = plan.start.num_parameters
    if plan.settings.lora:
        trained = layers * plan.settings.lora * (11 * width + 3 * inner)  # seven matrices, both factors
    longest = plan.settings.max_tokens * -(-plan.settings.batch // plan.settings.num_batches)
    kept = 1 if plan.settings.gradient_checkpointing else 8 + 3 * inner / width  # widths a layer and token
    activations = 2 * longest * layers * width * kept
    logits = 4 * min(MAX_LOGITS, longest * plan.start.vocabulary.num_ids)
    return (4 * plan.start.num_parameters + 12 * trained + activations + logits) / GIB


def _tokens(plan: Plan) -> float:
    """Of an update; a stream's examples are taken to be as long as they may."""
    each = plan.counts.tokens / plan.counts.examples if plan.counts else plan.settings.max_tokens
    return plan.settings.batch * each


def _operations(plan: Plan) -> int:
    return (4 if plan.settings.lora else 6) + 2 * plan.settings.gradient_checkpointing
