"""How fast fine-tuning is beside a plain Trainer loop on the same examples, masks and model.

    python -m benchmarks.speed_train --data FILE --json FILE

The plain loop is transformers' Trainer: batches in the order the examples come, padded to the longest, logits
at every position, cross-entropy over all of them. Ours lays the examples of a batch end to end, lets each
attend to itself, and computes the last layer and logits at masked positions only. Model (6 layers, d 256,
32,768 tokens), precision (float32), examples a batch (8) and an update (32), optimizer and masks are the
same. Updates are interleaved, two of full-sequence to one of response-only masking, as the paper's 8 and 4
epochs are; before each pair both models have the same weights. Reported: the ratio of non-padding tokens per
second, total over total, and the largest difference of losses.

FILE holds feedback records (or any form that `diffusion-infill train` reads), cut to 1,024 tokens of a
byte-level BPE made from its own texts.
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
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PrinterCallback, TrainerCallback, TrainingArguments

from benchmarks.checks import parsed
from benchmarks.report import write_json
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
from dspy_diffusion_infill.training.train import Batches
from dspy_diffusion_infill.training.trainer import MaskedDiffusionTrainer
from dspy_diffusion_infill.training.updates import Updates

MAX_TOKENS = 1024
BATCH, NUM_BATCHES = 32, 4
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


class PlainTrainer(MaskedDiffusionTrainer):
    """Logits everywhere, and labels that are ignored; losses are normalised as ours, so that they compare."""

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Sum over the labelled positions, over the number of all of the update."""
        ids, attention_mask = inputs["input_ids"], inputs["attention_mask"]
        logits = model(input_ids=ids, attention_mask=attention_mask, use_cache=False).logits
        labels = inputs["labels"].flatten()
        total = cross_entropy(logits.flatten(0, 1).float(), labels, ignore_index=IGNORED, reduction="sum")
        return total / cast(Tensor, num_items_in_batch)


class Clock(TrainerCallback):
    """Times what a Trainer does, data included, its own construction left out."""

    seconds = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.seconds -= time.perf_counter()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self.seconds += time.perf_counter()


class Loop:
    """One of the two: a model, its optimizer, and the Trainer that takes its updates."""

    def __init__(self, trainer: type[MaskedDiffusionTrainer], model: LlamaForCausalLM, folder: str) -> None:
        self.trainer = trainer
        self.model = model
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01, fused=True)
        self.arguments = TrainingArguments(
            output_dir=folder, max_steps=1, per_device_train_batch_size=1,
            gradient_accumulation_steps=NUM_BATCHES, use_cpu=True, report_to="none", save_strategy="no",
            logging_strategy="no", disable_tqdm=True, remove_unused_columns=False,
            dataloader_pin_memory=False,
        )  # fmt: skip

    def update(self, batches: Sequence[dict[str, Tensor]]) -> tuple[float, float]:
        """Seconds and loss of one update."""
        clock = Clock()
        trainer = self.trainer(
            self.model,  # pyright: ignore[reportArgumentType]
            self.arguments,
            train_dataset=Batches(batches.__getitem__, len(batches)),
            data_collator=lambda items: items[0],
            optimizers=(self.optimizer, None),
            callbacks=[clock],
        )
        trainer.remove_callback(PrinterCallback)
        loss = trainer.train().training_loss
        return clock.seconds, loss


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
    """Real conversations, cut to length, and the vocabulary made from them."""
    rows = cast(Iterable[dict[str, Any]], read(source))
    conversations = [
        [Message.text(turn["role"], turn["content"]) for turn in row["messages"]] for row in rows
    ]
    texts = (str(part) for turns in conversations for turn in turns for part in turn.parts)
    vocabulary = Vocabulary(train_tokenizer(texts, vocab_size), CHAT, vocab_size)
    return [truncate(encode(turns, vocabulary), MAX_TOKENS) for turns in conversations], vocabulary


def run(source: str, *, sizes: Sizes, seconds: float, seed: int) -> Iterator[Row]:
    """Pairs of updates, until the time is up; the first pair, which warms up, is left out."""
    examples, vocabulary = read_examples(source, sizes.vocab_size)
    deadline = time.monotonic() + seconds
    with TemporaryDirectory() as folder:
        plain = Loop(PlainTrainer, build(vocabulary, sizes), folder)
        ours = Loop(MaskedDiffusionTrainer, build(vocabulary, sizes), folder)
        attend_by_example(ours.model)
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
    parser.add_argument("--vocab-size", type=int, default=Sizes().vocab_size)
    options = parsed(parser, arguments)
    torch.set_num_threads(options.threads)
    started, rows = time.monotonic(), []
    print(f"{'':>4}{'tokens':>8}{'masked':>8}{'plain tok/s':>13}{'ours tok/s':>12}{'loss diff':>11}")
    sizes = Sizes(vocab_size=options.vocab_size)
    for row in run(options.data, sizes=sizes, seconds=60 * options.minutes, seed=options.seed):
        rows.append(row)
        print(_line(row), flush=True)
    for name, value in bars(rows).items():
        print(f"{name:<24}{value:.3g}")
    if options.json:
        write_json(
            options.json,
            rows=[asdict(row) for row in rows],
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
