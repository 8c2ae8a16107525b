"""How fast windows are filled, against LLaDA's loop as published, and what the faster cache modes cost.

    python -m benchmarks.speed_infill --json FILE

Speed: 8 windows of 8 tokens in an instruction of 200 tokens, beside 16 examples of about 1,500 tokens, all
from one text (order `independent`), on a random Llama-shaped model in float32. The opponent computes a full
forward pass and full logits at every step, one window at a time. Both commit one token a step at temperature
0, and must commit the same ones. The slow two take turns window by window, the fast two run between them.

Likelihood: windows of rating instructions are filled by the embedded model in every mode; the fillings are
scored by full passes. Excess is nats per filled token over those of mode `exact`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from benchmarks.cache_nll import measure_likelihood
from benchmarks.checks import parsed
from benchmarks.infilling import FAST, canvases, filled
from benchmarks.report import write_json
from benchmarks.roofline import measure_peaks, random_llada_8b, seconds_of
from benchmarks.tasks import generated_reviews
from dspy_diffusion_infill.engine.checkpoint import EMBEDDED, read_tokenizer
from dspy_diffusion_infill.engine.decoder import BidirectionalDecoder
from dspy_diffusion_infill.engine.llada import CHAT
from dspy_diffusion_infill.engine.vocabulary import Vocabulary
from dspy_diffusion_infill.prompts.canvas import CacheMode, Canvas, Message

INSTRUCTION_TOKENS, CONTEXT_TOKENS, SHOTS = 200, 1500, 16


@dataclass
class Times:
    """Seconds: per window of the slow ways, per pass over all windows of the fast ones."""

    published: list[float] = field(default_factory=list)
    exact: list[float] = field(default_factory=list)
    fast: dict[CacheMode, list[float]] = field(default_factory=lambda: {mode: [] for mode in FAST})

    def bars(self) -> dict[str, float]:
        """How many times faster than the published loop each mode is."""
        total = sum(self.published)
        bars = {"exact_speedup": total / sum(self.exact)}
        return bars | {f"{mode}_speedup": total / median(self.fast[mode]) for mode in FAST}


def random_model() -> BidirectionalDecoder:
    """A Llama-shaped model of random weights: width 512, 8 layers, 32,768 tokens, LLaDA's proportions."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32768,
        hidden_size=512,
        intermediate_size=1536,
        num_hidden_layers=8,
        num_attention_heads=8,
        max_position_embeddings=4096,
        initializer_range=0.06,
        is_causal=False,  # pyright: ignore[reportCallIssue]  (extra settings are kept)
    )
    vocabulary = Vocabulary(read_tokenizer(EMBEDDED), CHAT, config.vocab_size)
    return BidirectionalDecoder(LlamaForCausalLM(config).float(), vocabulary, "random", 4096)


def speed_canvases(vocabulary: Vocabulary, num_windows: int) -> list[Canvas]:
    """The first windows over a long instruction, beside long examples."""
    sentences = [text for text, _ in generated_reviews()]

    def text(num_tokens: int) -> str:
        words = " ".join(islice(iter(sentences.pop, None), 12))
        while len(vocabulary.encode(words)) < num_tokens:
            words += " " + sentences.pop()
        return words[: vocabulary.offsets(words)[num_tokens - 1][1]]

    shots = [
        turn
        for _ in range(SHOTS)
        for turn in (
            Message.text("user", text(CONTEXT_TOKENS // SHOTS - 10)),
            Message.text("assistant", "4"),
        )
    ]
    instructions = text(INSTRUCTION_TOKENS)
    return canvases(vocabulary, instructions, shots)[:num_windows]


@torch.inference_mode()
def published_loop(network: PreTrainedModel, ids: Sequence[int], mask_id: int, banned: Tensor) -> list[int]:
    """`generate` of LLaDA (arXiv:2502.09992), low-confidence remasking at temperature 0, one commit a step.

    Differs: masks lie inside the prompt, as one block; ids that stand for no text are not predicted; softmax
    in float32.
    """
    x = torch.tensor([ids])
    for _ in range(int((x == mask_id).sum())):
        mask_index = x == mask_id
        logits = network(x, use_cache=False).logits
        places = mask_index[0].nonzero()[:, 0]
        logits[0, places] = logits[0, places].masked_fill(banned, -torch.inf)
        x0 = logits.argmax(-1)
        x0_p = logits.softmax(-1).gather(-1, x0[..., None]).squeeze(-1)
        confidence = torch.where(mask_index, x0_p, -torch.inf)
        chosen = confidence[0].topk(1).indices
        x[0, chosen] = x0[0, chosen]
    return x[0].tolist()


def timed(run: Callable[[], Any]) -> tuple[Any, float]:
    """What it gives, and the seconds it took."""
    started = time.perf_counter()
    return run(), time.perf_counter() - started


def measure_speed(model: BidirectionalDecoder, rows: Sequence[Canvas], rounds: int) -> tuple[Times, int]:
    """Time every way of filling the same windows, and count windows that `exact` filled otherwise."""
    layouts = [model.vocabulary.lay_out((*row.messages, *row.context)).ids for row in rows]
    banned = torch.zeros(model.vocabulary.num_ids, dtype=torch.bool)
    banned[sorted(model.banned_ids)] = True
    times, num_different = Times(), 0
    for mode in FAST:  # warm up
        filled(model, rows[:1], mode)
    for number, (row, ids) in enumerate(zip(rows, layouts, strict=True)):
        expected, seconds = timed(
            lambda ids=ids: published_loop(model.network, ids, model.mask_token_id, banned)
        )
        times.published.append(seconds)
        ((found,), seconds) = timed(lambda row=row: filled(model, [row], "exact"))
        times.exact.append(seconds)
        num_different += found != expected
        if number * rounds // len(rows) != (number + 1) * rounds // len(rows):
            for mode in FAST:
                times.fast[mode].append(timed(lambda mode=mode: filled(model, rows, mode))[1])
    return times, num_different


def measure_gpu(num_windows: int) -> list[dict[str, Any]]:
    """LLaDA-8B's shape in every mode: seconds, and the share of the roofline that was reached."""
    model = random_llada_8b(Vocabulary(read_tokenizer(EMBEDDED), CHAT, 126464))
    rows, peaks = speed_canvases(model.vocabulary, num_windows), measure_peaks()
    table: list[dict[str, Any]] = [{"gpu": torch.cuda.get_device_name(), "peaks": asdict(peaks)}]
    for mode in ("exact", *FAST):
        filled(model, rows[:1], mode)  # warm up
        model.work.clear()
        seconds = seconds_of(lambda mode=mode: filled(model, rows, mode))
        share = model.least_seconds(peaks) / seconds
        table.append({"shape": "LLaDA-8B", "mode": mode, "seconds": seconds, "roofline_share": share})
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="file for the result")
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=4, help="runs of the fast modes")
    parser.add_argument("--instructions", type=int, default=120, help="for the likelihood; 0 leaves it out")
    options = parsed(parser, arguments)
    started = time.monotonic()
    table, bars = [], {}
    if options.instructions:
        table, bars = measure_likelihood(options.instructions)
    model = random_model()
    times, num_different = measure_speed(
        model, speed_canvases(model.vocabulary, options.windows), options.rounds
    )
    table.append(
        {"published_s": times.published, "exact_s": times.exact, **{f"{m}_s": times.fast[m] for m in FAST}}
    )
    table.append({"windows_that_exact_fills_otherwise": num_different})
    if not num_different:
        bars |= times.bars()
    if torch.cuda.is_available():
        table += measure_gpu(options.windows)
    for row in table:
        print(row)
    for name, value in bars.items():
        print(f"{name:<20}{value:>8.3f}")
    if options.json:
        write_json(options.json, rows=table, bars=bars, seeds=[0], started=started)


if __name__ == "__main__":
    main()
