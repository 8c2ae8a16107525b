"""The last layer, where its output is read: nothing depends on the rest of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn


@contextmanager
def only_read(network: Any, read: Tensor) -> Iterator[None]:
    """While open, the last layer's queries, output projection and feed-forward part are zeros but at `read`.

    Keys and values are made everywhere. A layer that is made again for its gradient (activation
    checkpointing, by transformers or by a wrapper around the whole layer) is left as it is: that happens when
    this is closed.

    Args:
        network: Of transformers, with layers as Llama's. Nobody else may run it meanwhile.
        read: bool, [rows, length].
    """
    layer = network.get_decoder().layers[-1]
    with ExitStack() as stack:
        bare = "mlp" in layer._modules  # a wrapper has the layer as its only part
        if bare and not getattr(layer, "gradient_checkpointing", False):
            for module in (layer.self_attn.q_proj, layer.self_attn.o_proj, layer.mlp):
                stack.enter_context(forward_as(module, partial(_at, read, module.forward)))
        yield


@contextmanager
def forward_as(module: nn.Module, forward: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """While open, a module computes this."""
    own = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if own is not None:
            module.forward = own


def _at(read: Tensor, forward: Callable[[Tensor], Tensor], hidden: Tensor) -> Tensor:
    found = forward(hidden[read])
    return found.new_zeros(*read.shape, found.shape[-1]).index_put((read,), found)
