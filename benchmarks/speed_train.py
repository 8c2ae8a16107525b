"""How fast fine-tuning is beside a plain Trainer loop on the same examples, masks and model.

    python -m benchmarks.speed_train --data FILE --json FILE

The plain loop is transformers' Trainer: batches in the order the examples come, padded to the longest, logits
at every position, cross-entropy over all of them. Ours lays the examples of a batch end to end, lets each
attend to itself, and computes the last layer and logits at masked positions only. Model (6 layers, d 256,
32,768 tokens), precision, examples a batch (8) and an update (32), optimizer and masks are the same. The
precision is that in which `diffusion-infill train` computes on this machine, unless it is given: bfloat16
with float32 weights where products in it are fast, else float32. Updates are interleaved, two of
full-sequence to one of response-only masking, as the paper's 8 and 4 epochs are; before each pair both models
have the same weights. Reported: the ratio of non-padding tokens per second, total over total; and the largest
difference of losses on the same masks, `loss_diff` in float32 and before anything is timed, since bfloat16
hides mistakes behind its rounding, and `loss_diff_timed` of the updates that were timed. The plain products
by which ours attends in bfloat16 on a CPU show in the second alone; the tests compare them in float32.

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
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from benchmarks.checks import check_enough, parsed
from benchmarks.report import write_json
from benchmarks.speed_train_gpu import measure_gpu
from benchmarks.training_loops import BATCH, MAX_TOKENS, NUM_BATCHES, Loop, Sizes, loops
from dspy_diffusion_infill.engine.llada import CHAT
from dspy_diffusion_infill.engine.vocabulary import Vocabulary
from dspy_diffusion_infill.prompts.canvas import Message
from dspy_diffusion_infill.training.corpus import truncate
from dspy_diffusion_infill.training.data import Example, encode
from dspy_diffusion_infill.training.embedded import train_tokenizer
from dspy_diffusion_infill.training.loss import IGNORED
from dspy_diffusion_infill.training.masking import Objective
from dspy_diffusion_infill.training.packing import Noised, lay_out
from dspy_diffusion_infill.training.sources import read
from dspy_diffusion_infill.training.train import fast_in_bf16
from dspy_diffusion_infill.training.updates import Updates

PRECISIONS = ("float32", "bfloat16")
STAGES: tuple[Objective, ...] = ("fs", "fs", "ro")


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


def read_examples(source: str, vocab_size: int) -> tuple[list[Example], Vocabulary]:
    """Real conversations, cut to length, and the vocabulary made from them.

    Raises:
        SettingsError: If they are too few to time an update after one that warms up.
    """
    rows = cast(Iterable[dict[str, Any]], read(source))
    conversations = [
        [Message.text(turn["role"], turn["content"]) for turn in row["messages"]] for row in rows
    ]
    texts = (str(part) for turns in conversations for turn in turns for part in turn.parts)
    vocabulary = Vocabulary(train_tokenizer(texts, vocab_size), CHAT, vocab_size)
    encoded = (truncate(encode(turns, vocabulary), MAX_TOKENS) for turns in conversations)
    examples = [one for one in encoded if any(one.response)]
    check_enough(f"The examples in {source} that have a response", examples, 2 * BATCH)
    return examples, vocabulary


class Update(NamedTuple):
    """The same masks on the same examples, for both loops."""

    objective: Objective
    noised: Sequence[Noised]
    plain: list[dict[str, Tensor]]
    ours: list[dict[str, Tensor]]


def lay_out_both(
    examples: Sequence[Example], vocabulary: Vocabulary, stage: Objective, number: int, seed: int
) -> Update:
    """An update's batches, as each loop wants them."""
    size = BATCH // NUM_BATCHES
    updates = Updates(examples, vocabulary, stage, batch=BATCH, num_batches=NUM_BATCHES, seed=seed)
    noised = updates.noised(number)
    in_order = [
        lay_out([[one] for one in noised[first : first + size]], vocabulary.padding_id)
        for first in range(0, BATCH, size)
    ]
    packed = [updates(number * NUM_BATCHES + part) for part in range(NUM_BATCHES)]
    return Update(stage, noised, in_order, packed)


def difference(examples: Sequence[Example], vocabulary: Vocabulary, sizes: Sizes, seed: int) -> float:
    """The largest, of the losses of an update of each objective, in float32."""
    with TemporaryDirectory() as folder:
        plain, ours = loops(vocabulary, sizes, folder, bf16=False)
        updates = [lay_out_both(examples, vocabulary, one, 0, seed) for one in sorted(set(STAGES))]
        return max(abs(plain.loss(update.plain) - ours.loss(update.ours)) for update in updates)


def run(
    examples: Sequence[Example],
    vocabulary: Vocabulary,
    *,
    sizes: Sizes,
    seconds: float,
    seed: int,
    bf16: bool,
) -> Iterator[Row]:
    """Pairs of updates, one at least, until the time is up; a first one, which warms up, is left out."""
    deadline = time.monotonic() + seconds
    with TemporaryDirectory() as folder:
        plain, ours = loops(vocabulary, sizes, folder, bf16=bf16)
        for number in range(len(examples) // BATCH):
            ours.model.load_state_dict(plain.model.state_dict())
            update = lay_out_both(examples, vocabulary, STAGES[number % len(STAGES)], number, seed)
            row = pair(plain, ours, update, ours_first=number % 2 == 1)
            if not number:
                continue
            yield row
            if time.monotonic() > deadline:
                return


def pair(plain: Loop, ours: Loop, update: Update, *, ours_first: bool) -> Row:
    """The same update by both."""
    found = {}
    for loop, batches in ((plain, update.plain), (ours, update.ours))[:: -1 if ours_first else 1]:
        found[loop] = loop.update(batches)
    return Row(
        update.objective,
        sum(len(one.ids) for one in update.noised),
        sum(int((one.labels != IGNORED).sum()) for one in update.noised),
        padding(update.plain),
        found[plain][0],
        found[ours][0],
        found[plain][1],
        found[ours][1],
    )


def padding(batches: Sequence[dict[str, Tensor]]) -> float:
    """Share of the positions that are padding."""
    positions = sum(batch["attention_mask"].numel() for batch in batches)
    return 1 - sum(int((batch["attention_mask"] > 0).sum()) for batch in batches) / positions


def bars(rows: Sequence[Row], loss_diff: float) -> dict[str, float]:
    """The measured numbers, by name."""
    found = {"tokens_per_s_ratio": ratio(rows)}
    for stage in sorted(set(STAGES)):
        if own := [row for row in rows if row.objective == stage]:
            found[f"tokens_per_s_ratio_{stage}"] = ratio(own)
    timed = max(abs(row.loss_plain - row.loss_ours) for row in rows)
    return found | {"loss_diff": loss_diff, "loss_diff_timed": timed}


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
    sizes = Sizes(vocab_size=options.vocab_size)
    data = read_examples(options.data, sizes.vocab_size)
    loss_diff = difference(*data, sizes, options.seed)
    print(options.precision)
    print(f"{'':>4}{'tokens':>8}{'masked':>8}{'plain tok/s':>13}{'ours tok/s':>12}{'loss diff':>11}")
    bf16 = options.precision == "bfloat16"
    seconds = 60 * options.minutes - (time.monotonic() - started)
    for row in run(*data, sizes=sizes, seconds=seconds, seed=options.seed, bf16=bf16):
        rows.append(row)
        print(_line(row), flush=True)
    found = bars(rows, loss_diff)
    for name, value in found.items():
        print(f"{name:<24}{value:.3g}")
    gpu = measure_gpu(*data, seed=options.seed) if torch.cuda.is_available() else []
    for row in gpu:
        print(row)
    if options.json:
        write_json(
            options.json,
            rows=[{"precision": options.precision}, *(asdict(row) for row in (*rows, *gpu))],
            bars=found,
            seeds=[options.seed],
            started=started,
        )


def _line(row: Row) -> str:
    speeds = f"{row.tokens / row.seconds_plain:>13.0f}{row.tokens / row.seconds_ours:>12.0f}"
    difference = abs(row.loss_plain - row.loss_ours)
    return f"{row.objective:>4}{row.tokens:>8}{row.masked:>8}{speeds}{difference:>11.1e}"


if __name__ == "__main__":
    main()
