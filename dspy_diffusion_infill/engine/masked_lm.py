"""Masked LMs (BERT, RoBERTa, ModernBERT, ...): small infillers that a laptop can run.

They were trained to fill few masks in plain text, so that many masks at once, conversations, and long answers
are beyond what they learned. Roles are not written; each turn ends in the separator token.
"""

from __future__ import annotations

import threading
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForMaskedLM, AutoTokenizer, PreTrainedModel

from dspy_diffusion_infill.engine.checkpoint import reading, weight_files
from dspy_diffusion_infill.engine.decoder import read_network
from dspy_diffusion_infill.engine.placement import Placement
from dspy_diffusion_infill.engine.vocabulary import ChatFormat, Vocabulary
from dspy_diffusion_infill.errors import ModelError

_PROBE = 16
"""Tokens of the longer of two rows that an architecture is tried with."""
_ROUNDING = 0.05
"""Of logits, in the lowest precision; architectures that do not heed padding are off by much more."""


class MaskedLM:
    """A mask predictor made of a transformers masked LM.

    Args:
        network: The transformers model. Set to evaluation, gradients off.
        vocabulary: Tokenizer and format.
        name: Identifies weights and precision.
        context_length: The longest sequence it was made for, in tokens.
    """

    def __init__(
        self, network: PreTrainedModel, vocabulary: Vocabulary, name: str, context_length: int
    ) -> None:
        self.network = network.eval().requires_grad_(False)
        self.vocabulary = vocabulary
        self.name = name
        self.context_length = context_length
        self._hooked = threading.Lock()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.network.device

    @property
    def mask_token_id(self) -> int:
        """The mask token."""
        return self.vocabulary.mask_token_id

    @property
    def banned_ids(self) -> frozenset[int]:
        """Ids that stand for no text."""
        return self.vocabulary.banned_ids

    def logits(self, ids: Tensor, attention_mask: Tensor, wanted: Tensor) -> Tensor:
        """Score the vocabulary at the wanted positions; the head runs on no other.

        Every architecture has a head of its own, so what is cut is the body's output, on its way to the head.
        """

        def keep_wanted(module: torch.nn.Module, arguments: object, output: dict[str, Tensor]) -> object:
            output["last_hidden_state"] = output["last_hidden_state"][wanted][None]
            return output

        with self._hooked:
            hook = self.network.base_model.register_forward_hook(keep_wanted)
            try:
                found = self.network(input_ids=ids, attention_mask=attention_mask.long(), return_dict=True)
                return found.logits[0].float()
            finally:
                hook.remove()


def load(folder: Path, *, name: str, placement: Placement) -> MaskedLM:
    """Load a masked LM.

    Args:
        folder: With config.json, tokenizer files and safetensors files.
        name: Identifies weights and precision.
        placement: Where the weights go, and in which precision.

    Raises:
        ModelError: If the checkpoint is broken, or has no mask token.
    """
    weight_files(folder)
    with reading("The config", folder):
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    with reading("The tokenizer", folder):
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    start = tokenizer.cls_token or tokenizer.bos_token
    end = tokenizer.sep_token or tokenizer.eos_token
    if None in (tokenizer.mask_token, start, end):
        raise ModelError(
            "A masked LM's tokenizer must have a mask token and tokens for start and end; that in "
            f"{str(folder)!r} has {tokenizer.mask_token}, {start} and {end}."
        )
    chat = ChatFormat(mask=tokenizer.mask_token, stops=(end,), start=(start,), end=(end,))
    vocabulary = Vocabulary(tokenizer.backend_tokenizer, chat, config.vocab_size)
    network = read_network(folder, AutoModelForMaskedLM, config, placement, may_leave_over=True)
    with reading("The sizes", folder):
        model = MaskedLM(network, vocabulary, name, _context_length(network))
        _check_rows(model)
    return model


def _check_rows(model: MaskedLM) -> None:
    """See that a row is scored alike alone and padded beside a longer one, which some architectures do not.

    Raises:
        ModelError: If it is not.
    """
    ids = torch.full((2, _PROBE), model.mask_token_id, device=model.device)
    attention_mask = torch.ones_like(ids, dtype=torch.bool)
    attention_mask[0, _PROBE // 2 :] = False
    both = model.logits(ids, attention_mask, attention_mask)[: _PROBE // 2]
    short = ids[:1, : _PROBE // 2], attention_mask[:1, : _PROBE // 2]
    if not torch.allclose(both, model.logits(*short, short[1]), atol=_ROUNDING):
        raise ModelError(
            f"A masked LM must score a row alike whatever stands beside it; {type(model.network).__name__} "
            "does not heed padding. Take a BERT, RoBERTa, DeBERTa or ModernBERT."
        )


def _context_length(network: PreTrainedModel) -> int:
    """RoBERTa and its kin count positions from behind their padding id."""
    length = network.config.max_position_embeddings
    for module_name, module in network.named_modules():
        if module_name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            return length - module.padding_idx - 1
    return length
