"""How fast fine-tuning is beside a plain Trainer loop on the same examples, masks and model.

    python -m benchmarks.speed_train --data FILE --json FILE

The plain loop is transformers' Trainer: batches in the order the examples come, padded to the longest, logits
at every position, cross-entropy over all of them. Ours lays the examples of a batch end to end, lets each
attend to itself, and computes the last layer and logits at masked positions only. Model (6 layers, d 256,
32,768 tokens), precision, examples a batch (8) and an update (32), optimizer and masks are the same. The
precision is that in which `diffusion-infill train` computes on this machine, unless it is given: bfloat16
with float32 weights where products in it are fast, else float32. Updates are interleaved, two of
full-sequence to one of response-only masking, as the paper's 8 and 4 epochs are; before each pair both models
have the same weights. Reported: the ratio of non-padding tokens per second, total over total, and the largest
difference of losses.

FILE holds feedback records (or any form that `diffusion-infill train` reads), cut to 1,024 tokens of a
byte-level BPE made from its own texts. With a GPU, ours alone is timed there too, on the same examples: a
model of LLaDA-8B's shape with LoRA.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.checks import check_enough, parsed
from benchmarks.report import write_json
from benchmarks.speed_train_gpu import measure_gpu
from benchmarks.training_loops import BATCH, NUM_BATCHES, Loop, PlainTrainer
from dspy_diffusion_infill.engine.attention import attend_by_example
from dspy_diffusion_infill.engine.llada import CHAT
from dspy_diffusion_infill.engine.vocabulary import Vocabulary
from dspy_diffusion_infill.prompts.canvas import Message
from dspy_diffusion_infill.training.corpus import truncate
from dspy_diffusion_infill.training.data import Example, encode
from dspy_diffusion_infill.training.embedded import train_tokenizer
from dspy_diffusion_infill.training.loss import IGNORED
from dspy_diffusion_infill.training.masking import Objective
from dspy_diffusion_infill.training.packing import lay_out
from dspy_diffusion_infill.training.sources import read
from dspy_diffusion_infill.training.train import fast_in_bf16
from dspy_diffusion_infill.training.trainer import MaskedDiffusionTrainer
from dspy_diffusion_infill.training.updates import Updates

PRECISIONS = ("float32", "bfloat16")
MAX_TOKENS = 1024
STAGES: tuple[Objective, ...] = ("fs", "fs", "ro")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Of the model; the defaults are those of the bar."""

    vocab_size: int = 32768
    hidden_size: int = 256
    num_layers: int = 6


@dataclass(frozen=True, slots=True)
class Row:
    """One pair of updates."""

    objective: str
    tokens: int
    masked: int
    padding: float
    """Share of the plain loop's positions that are padding."""
    seconds_plain: float
    seconds_ours: float
    loss_plain: float
    loss_ours: float


def build(vocabulary: Vocabulary, sizes: Sizes) -> LlamaForCausalLM:
    """A LLaDA of these sizes with random weights, the same every time."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=sizes.vocab_size,
        hidden_size=sizes.hidden_size,
        intermediate_size=3 * sizes.hidden_size,
        num_hidden_layers=sizes.num_layers,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        bos_token_id=None,
        eos_token_id=vocabulary.padding_id,
        is_causal=False,  # pyright: ignore[reportCallIssue]
    )
    return LlamaForCausalLM(config)


def read_examples(source: str, vocab_size: int) -> tuple[list[Example], Vocabulary]:
    """Real conversations, cut to length, and the vocabulary made from them.

    Raises:
        SettingsError: If they are too few to time an update after one that warms up.
    """
    rows = cast(Iterable[dict[str, Any]], read(source))
    conversations = [
        [Message.text(turn["role"], turn["content"]) for turn in row["messages"]] for row in rows
    ]
    check_enough(f"The examples in {source}", conversations, 2 * BATCH)
    texts = (str(part) for turns in conversations for turn in turns for part in turn.parts)
    vocabulary = Vocabulary(train_tokenizer(texts, vocab_size), CHAT, vocab_size)
    return [truncate(encode(turns, vocabulary), MAX_TOKENS) for turns in conversations], vocabulary


def run(source: str, *, sizes: Sizes, seconds: float, seed: int, bf16: bool) -> Iterator[Row]:
    """Pairs of updates, until the time is up; the first pair, which warms up, is left out."""
    examples, vocabulary = read_examples(source, sizes.vocab_size)
    deadline = time.monotonic() + seconds
    with TemporaryDirectory() as folder:
        plain = Loop(PlainTrainer, build(vocabulary, sizes), folder, bf16=bf16)
        model = build(vocabulary, sizes)
        attend_by_example(model)
        ours = Loop(MaskedDiffusionTrainer, model, folder, bf16=bf16)
        for update in range(len(examples) // BATCH):
            ours.model.load_state_dict(plain.model.state_dict())
            row = pair(plain, ours, examples, vocabulary, update, seed)
            if update:
                yield row
            if time.monotonic() > deadline:
                return


def pair(
    plain: Loop, ours: Loop, examples: Sequence[Example], vocabulary: Vocabulary, update: int, seed: int
) -> Row:
    """The same update by both, in turn the one and the other first."""
    stage = STAGES[update % len(STAGES)]
    updates = Updates(examples, vocabulary, stage, batch=BATCH, num_batches=NUM_BATCHES, seed=seed)
    noised, size = updates.noised(update), BATCH // NUM_BATCHES
    in_order = [
        lay_out([[one] for one in noised[first : first + size]], vocabulary.padding_id)
        for first in range(0, BATCH, size)
    ]
    packed = [updates(update * NUM_BATCHES + part) for part in range(NUM_BATCHES)]
    found = {}
    for loop, batches in ((plain, in_order), (ours, packed))[:: -1 if update % 2 else 1]:
        found[loop] = loop.update(batches)
    return Row(
        stage,
        sum(len(one.ids) for one in noised),
        sum(int((one.labels != IGNORED).sum()) for one in noised),
        padding(in_order),
        found[plain][0],
        found[ours][0],
        found[plain][1],
        found[ours][1],
    )


def padding(batches: Sequence[dict[str, Tensor]]) -> float:
    """Share of the positions that are padding."""
    positions = sum(batch["attention_mask"].numel() for batch in batches)
    return 1 - sum(int((batch["attention_mask"] > 0).sum()) for batch in batches) / positions


def bars(rows: Sequence[Row]) -> dict[str, float]:
    """The measured numbers, by name."""
    found = {"tokens_per_s_ratio": ratio(rows)}
    for stage in sorted(set(STAGES)):
        if own := [row for row in rows if row.objective == stage]:
            found[f"tokens_per_s_ratio_{stage}"] = ratio(own)
    return found | {"loss_diff": max(abs(row.loss_plain - row.loss_ours) for row in rows)}


def ratio(rows: Sequence[Row]) -> float:
    """Tokens are the same for both, so that tokens per second compare as seconds do."""
    return sum(row.seconds_plain for row in rows) / sum(row.seconds_ours for row in rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="file of feedback records or conversations")
    parser.add_argument("--json", type=Path, help="file for the result")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--precision", choices=PRECISIONS, default=PRECISIONS[fast_in_bf16(use_cpu=True)])
    parser.add_argument("--vocab-size", type=int, default=Sizes().vocab_size)
    options = parsed(parser, arguments)
    torch.set_num_threads(options.threads)
    started, rows = time.monotonic(), []
    print(options.precision)
    print(f"{'':>4}{'tokens':>8}{'masked':>8}{'plain tok/s':>13}{'ours tok/s':>12}{'loss diff':>11}")
    sizes = Sizes(vocab_size=options.vocab_size)
    seconds, bf16 = 60 * options.minutes, options.precision == "bfloat16"
    for row in run(options.data, sizes=sizes, seconds=seconds, seed=options.seed, bf16=bf16):
        rows.append(row)
        print(_line(row), flush=True)
    for name, value in bars(rows).items():
        print(f"{name:<24}{value:.3g}")
    gpu = []
    if torch.cuda.is_available():
        gpu = measure_gpu(*read_examples(options.data, options.vocab_size), seed=options.seed)
    for found in gpu:
        print(found)
    if options.json:
        write_json(
            options.json,
            rows=[{"precision": options.precision}, *(asdict(row) for row in (*rows, *gpu))],
            bars=bars(rows),
            seeds=[options.seed],
            started=started,
        )


def _line(row: Row) -> str:
    speeds = f"{row.tokens / row.seconds_plain:>13.0f}{row.tokens / row.seconds_ours:>12.0f}"
    difference = abs(row.loss_plain - row.loss_ours)
    return f"{row.objective:>4}{row.tokens:>8}{row.masked:>8}{speeds}{difference:>11.1e}"


if __name__ == "__main__":
    main()
