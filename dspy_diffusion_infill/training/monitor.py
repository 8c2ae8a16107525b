"""What can be seen of a model while it is trained: held-out losses, and prompts that it infills."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from functools import partial
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

from dspy_diffusion_infill.engine.denoise import infill
from dspy_diffusion_infill.engine.reverse import Decoding
from dspy_diffusion_infill.engine.vocabulary import Vocabulary
from dspy_diffusion_infill.prompts.canvas import Denoising
from dspy_diffusion_infill.training.data import Example, noise
from dspy_diffusion_infill.training.loss import IGNORED, masked_losses
from dspy_diffusion_infill.training.masking import stratified
from dspy_diffusion_infill.training.packing import lay_out, spread

logger = logging.getLogger(__name__)

AT_A_TIME = 8
"""Examples measured together, on average."""
WINDOW = 8
"""Tokens of a sample infill."""


class HeldOut:
    """Measures losses of prompts given their responses, and of responses given their prompts, apart.

    The examples and their masks stay the same from one time to the next. A perplexity is the exponential of
    the likelihood bound per token, estimated with one draw of `exact_count` an example.

    Args:
        examples: Not trained on.
        vocabulary: Of the model.
        shift: How many places before a token its logits are read.
        seed: Of the masks.
        num_samples: Prompts infilled, and logged, each time.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        vocabulary: Vocabulary,
        *,
        shift: int,
        seed: int,
        num_samples: int = 2,
    ) -> None:
        self.vocabulary = vocabulary
        self.shift = shift
        self.samples = [example for example in examples if any(_prompt(example))][:num_samples]
        random = Random(f"{seed}:held out")
        self.batches = {
            part: self._batches([_only(example, flags(example)) for example in examples], random)
            for part, flags in (("prompt", _prompt), ("response", lambda example: example.response))
        }

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """Losses in nats per masked token, and perplexities; sample infills go to the log."""
        training = model.training
        model.eval()
        with torch.no_grad():
            found = {
                name: value
                for part, batches in self.batches.items()
                for name, value in self._measure(model, part, batches).items()
            }
            for example in self.samples:
                logger.info("%s", self.sample(model, example))
        model.train(training)
        return found

    def sample(self, model: nn.Module, example: Example) -> str:
        """The middle of a prompt, as it reads and as the model infills it."""
        places = [at for at, prompt in enumerate(_prompt(example)) if prompt]
        middle = max(0, len(places) // 2 - WINDOW // 2)
        chosen = places[middle : middle + WINDOW]
        ids = list(example.ids)
        for at in chosen:
            ids[at] = self.vocabulary.mask_token_id
        decoding = Decoding(denoising=Denoising(temperature=0.0))
        (filled,) = infill(
            _Trained(model, self.vocabulary, self.shift), [ids], num_candidates=1, decoding=decoding, seed=0
        )[0]
        was, now = (self.vocabulary.decode([row[at] for at in chosen]) for row in (example.ids, filled.ids))
        return f"infilled {now!r} where the text has {was!r}"

    def _batches(self, examples: Sequence[Example], random: Random) -> list[dict[str, Tensor]]:
        examples = [example for example in examples if any(example.response)]
        levels = stratified(len(examples), random)
        mask = partial(noise, mask_token_id=self.vocabulary.mask_token_id, weighting="inverse_t")
        noised = [
            mask(example, "ro", random.getrandbits(62), t=level)
            for example, level in zip(examples, levels, strict=True)
        ]
        groups = spread([len(one.ids) for one in noised], -(-len(noised) // AT_A_TIME)) if noised else []
        return [lay_out([[noised[index] for index in group]], self.vocabulary.padding_id) for group in groups]

    def _measure(self, model: nn.Module, part: str, batches: Sequence[dict[str, Tensor]]) -> dict[str, float]:
        if not batches:
            return {}
        total, count, bound, tokens = 0.0, 0, 0.0, 0.0
        for batch in (_on(batch, next(model.parameters()).device) for batch in batches):
            labels, attention_mask = batch["labels"], batch["attention_mask"]
            losses = masked_losses(model, batch["input_ids"], labels, attention_mask, shift=self.shift)
            weights = batch["weights"][labels != IGNORED]
            total, count = total + float(losses.sum()), count + len(losses)
            bound, tokens = bound + float((losses * weights).sum()), tokens + float(weights.sum())
        return {f"{part}_loss": total / count, f"{part}_perplexity": math.exp(min(bound / tokens, 700))}


class _Trained:
    """A network in training as a mask predictor; nothing about it is changed."""

    name = "in training"

    def __init__(self, network: Any, vocabulary: Vocabulary, shift: int) -> None:
        self.network = network
        self.device = next(network.parameters()).device
        self.context_length = network.config.max_position_embeddings
        self.mask_token_id = vocabulary.mask_token_id
        self.banned_ids = vocabulary.banned_ids
        self.shift = shift

    def logits(self, ids: Tensor, attention_mask: Tensor, wanted: Tensor) -> Tensor:
        """Of the wanted positions."""
        scores = self.network(input_ids=ids, attention_mask=attention_mask.long(), use_cache=False).logits
        return scores[wanted.roll(-self.shift, 1)].float()


def _prompt(example: Example) -> tuple[bool, ...]:
    return tuple(m and not r for m, r in zip(example.maskable, example.response, strict=True))


def _only(example: Example, flags: tuple[bool, ...]) -> Example:
    """The example with these tokens as what may be masked, and as its response."""
    return Example(example.ids, flags, flags)


def _on(batch: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: value.to(device) for name, value in batch.items()}
