"""Build the embedded model: a small LLaDA that rates reviews and writes the instruction it was given.

`training.recipe` says how, and why in that order. An interrupted build goes on.

    python -m dspy_diffusion_infill.training.embedded --data DIR --output DIR
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from dspy_diffusion_infill.engine.llada import CHAT
from dspy_diffusion_infill.engine.vocabulary import Vocabulary
from dspy_diffusion_infill.training.grammar import Reviews
from dspy_diffusion_infill.training.recipe import Recipe
from dspy_diffusion_infill.training.schemes import training_instructions
from dspy_diffusion_infill.training.train import Batches, train
from dspy_diffusion_infill.training.work import check_output
from dspy_diffusion_infill.training.world import PARTS, RealReviews, Stage, World

logger = logging.getLogger(__name__)

CONTEXT_LENGTH = 512
WORDS = r"\s*[\r\n]+| ?\p{N}{1,3}(?:\.\p{N}{1,2})?| ?\p{L}+(?:'\p{L}+)?| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""Pieces that no token crosses. A decimal is one piece: a scale of 1.0 costs what a scale of 1 does."""


LABEL_COPIES = 20
"""Of every label, beside each instruction in the tokenizer's corpus: enough to make it one token. Else the
number of masks would tell the answers of a scheme apart, and nothing would be read."""


def train_tokenizer(corpus: Iterator[str], vocab_size: int) -> Tokenizer:
    """A byte-level BPE with LLaDA's special tokens."""
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(WORDS), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(dict.fromkeys(("<|startoftext|>", "<|endoftext|>", *CHAT.special_tokens))),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


def build(data: Path, output: Path, recipe: Recipe, *, use_cpu: bool = False) -> None:
    """Train the model from nothing, or go on where an interrupted build stopped.

    Args:
        data: Folder with `sst5_train.jsonl`.
        output: Receives the checkpoint. Must not exist; a folder beside it keeps what each stage made, so
            that a recipe whose later stages change goes on from the earlier ones.
        recipe: What to build.
        use_cpu: Stay on the CPU even if there is a GPU.

    Raises:
        SettingsError: If `output` exists.
    """
    check_output(output)
    started = time.monotonic()
    torch.manual_seed(recipe.seed)
    real = RealReviews(data)
    tokenizer = train_tokenizer(_corpus(real, recipe.seed), recipe.vocab_size)
    vocabulary = Vocabulary(tokenizer, CHAT, recipe.vocab_size)
    model = LlamaForCausalLM(_config(recipe, vocabulary))
    world = World(real, vocabulary)
    work = output.with_name(output.name + "-work")
    for stage in recipe.stages:
        logger.info("stage %s: %d updates", stage.name, stage.num_updates)
        model = _run(
            stage,
            model,
            _batches(world, stage, recipe),
            work,
            recipe,
            use_cpu,
        )
    _save(model, tokenizer, vocabulary, output)
    logger.info("built in %.0f minutes", (time.monotonic() - started) / 60)


def _batches(world: World, stage: Stage, recipe: Recipe) -> Batches:
    make = partial(world.batch, stage, recipe.batch_tokens, recipe.seed)
    return Batches(make, stage.num_updates * PARTS)


def _run(
    stage: Stage, model: LlamaForCausalLM, batches: Batches, work: Path, recipe: Recipe, use_cpu: bool
) -> LlamaForCausalLM:
    """One stage, or what it left behind if it is done."""
    running = work / f"{stage.name}-{_fingerprint(recipe, stage)}"
    done = running.with_name(running.name + "-done")
    if not done.is_dir():
        # On a CPU the backward pass of fused attention is slow: whole updates take 1.3 times as long.
        model.set_attn_implementation("eager")
        train(
            model,
            batches,
            running,
            learning_rate=stage.learning_rate,
            warmup_updates=min(50, stage.num_updates // 4),
            decay=stage.decay,
            seed=recipe.seed,
            use_cpu=use_cpu,
            accumulation=PARTS,
        )
        model.save_pretrained(work / "saving")
        (work / "saving").rename(done)
        shutil.rmtree(running)
    return LlamaForCausalLM.from_pretrained(done)


def _fingerprint(recipe: Recipe, stage: Stage) -> str:
    """Of all that a stage's result depends on: sizes, seed, and the stages up to it."""
    so_far = recipe.stages[: recipe.stages.index(stage) + 1]
    return hashlib.sha256(repr(replace(recipe, stages=so_far)).encode()).hexdigest()[:8]


def _config(recipe: Recipe, vocabulary: Vocabulary) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=recipe.vocab_size,
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.intermediate_size,
        num_hidden_layers=recipe.num_layers,
        num_attention_heads=recipe.num_heads,
        max_position_embeddings=CONTEXT_LENGTH,
        tie_word_embeddings=True,  # copying an end of the scale between instruction and answers comes sooner
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        bos_token_id=None,
        eos_token_id=vocabulary.padding_id,
        mask_token_id=vocabulary.mask_token_id,  # pyright: ignore[reportCallIssue]
        is_causal=False,  # pyright: ignore[reportCallIssue]
    )


def _corpus(real: RealReviews, seed: int) -> Iterator[str]:
    """What the tokenizer is made from: every label and role weighs enough to be one token."""
    random = Random(f"{seed}:tokenizer")
    yield from (Reviews(random).draw()[0] for _ in range(20_000))
    yield from (text for texts in real.by_grade.values() for text in texts)
    for instruction in training_instructions():
        for label in instruction.scheme.labels:
            yield from (instruction.text, CHAT.header_text, "system", "user", "assistant")
            yield from LABEL_COPIES * (label, f" {label}")


def _save(model: LlamaForCausalLM, tokenizer: Tokenizer, vocabulary: Vocabulary, output: Path) -> None:
    """Write the checkpoint in bfloat16, all of it or nothing."""
    saving = output.with_name(output.name + "-saving")
    model.bfloat16().save_pretrained(saving)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, mask_token=CHAT.mask, eos_token=CHAT.stops[0]
    )
    wrapped.save_pretrained(saving)
    saving.rename(output)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Build the embedded model; an interrupted build goes on.")
    parser.add_argument("--data", type=Path, required=True, help="folder with sst5_train.jsonl")
    parser.add_argument("--output", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--cpu", action="store_true", help="stay on the CPU")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    build(options.data, options.output, Recipe(), use_cpu=options.cpu)


if __name__ == "__main__":
    main()
