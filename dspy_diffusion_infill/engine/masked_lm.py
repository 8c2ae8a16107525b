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

from dspy_diffusion_infill.engine.checkpoint import weight_files
from dspy_diffusion_infill.engine.decoder import read_network
from dspy_diffusion_infill.engine.placement import Placement
from dspy_diffusion_infill.engine.vocabulary import ChatFormat, Vocabulary
from dspy_diffusion_infill.errors import ModelError


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
                return self.network(input_ids=ids, attention_mask=attention_mask.long()).logits[0].float()
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
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if tokenizer.mask_token is None:
        raise ModelError(f"A masked LM must have a mask token; the tokenizer in {str(folder)!r} has none.")
    start = tokenizer.cls_token or tokenizer.bos_token
    end = tokenizer.sep_token or tokenizer.eos_token
    chat = ChatFormat(mask=tokenizer.mask_token, stops=(end,), start=(start,), end=(end,))
    vocabulary = Vocabulary(tokenizer.backend_tokenizer, chat, config.vocab_size)
    network = read_network(folder, AutoModelForMaskedLM, config, placement, may_leave_over=True)
    return MaskedLM(network, vocabulary, name, _context_length(network))


def _context_length(network: PreTrainedModel) -> int:
    """RoBERTa and its kin count positions from behind their padding id."""
    length = network.config.max_position_embeddings
    for module_name, module in network.named_modules():
        if module_name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            return length - module.padding_idx - 1
    return length
