"""What the loss does not depend on is not computed, and that changes nothing."""

import pytest
import torch
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaForCausalLM

from dspy_diffusion_infill.engine.attention import attend_by_example
from dspy_diffusion_infill.training import last_layer
from dspy_diffusion_infill.training.loss import IGNORED
from dspy_diffusion_infill.training.packing import Noised
from tests.training.test_packing import EXAMPLES, losses, network


def gradients(model: LlamaForCausalLM, rows: list[list[Noised]]) -> dict[str, torch.Tensor]:
    model.zero_grad()
    losses(model, rows, 0).sum().backward()
    return {
        name.replace("_checkpoint_wrapped_module.", ""): value.grad.clone()
        for name, value in model.named_parameters()
    }


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """Gradients where everything is computed, behind one mask."""
    with monkeypatch.context() as patched:
        patched.setattr(last_layer, "_at", lambda read, forward, hidden: forward(hidden))
        return gradients(network("llama"), [EXAMPLES])


def made_again(model: LlamaForCausalLM) -> None:
    model.train()
    model.activation_checkpointing_enable({"use_reentrant": False})


def wrapped(model: LlamaForCausalLM) -> None:
    """As FSDP's own activation checkpointing wraps layers."""
    layers = model.model.layers
    for number, layer in enumerate(layers):
        layers[number] = checkpoint_wrapper(layer)


@pytest.mark.parametrize("prepare", [lambda model: None, made_again, wrapped])
@pytest.mark.parametrize("by_example", [False, True])
def test_gradients_are_those_of_the_whole_layer(whole: dict[str, torch.Tensor], prepare, by_example: bool):
    model = network("llama")
    if by_example:
        attend_by_example(model)
    prepare(model)
    found = gradients(model, [EXAMPLES])
    assert found.keys() == whole.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, whole[name], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("attention", ["sdpa", "by example"])
def test_products_of_the_last_layer_are_made_at_read_positions_alone(attention: str):
    model = network("llama", attention)
    with FlopCounterMode(display=False) as counted:
        losses(model, [EXAMPLES], 0)
    tokens, masked, width, inner, words = 15, 5, 16, 24, 10
    projections, feed_forward = width * width, 3 * width * inner
    whole = tokens * (4 * projections + feed_forward)
    last = 2 * tokens * projections + masked * (2 * projections + feed_forward)  # keys and values everywhere
    (products,) = (
        number for name, number in counted.get_flop_counts()["Global"].items() if "mm" in str(name)
    )
    assert products == 2 * (whole + last + masked * width * words)


def test_a_batch_without_a_mask_has_gradients_of_zero():
    nothing = EXAMPLES[0]._replace(labels=torch.full((5,), IGNORED))
    model = network("llama")
    attend_by_example(model)
    found = gradients(model, [[nothing, nothing]])
    assert len(found) == len(list(model.parameters()))
    assert not any(value.any() for value in found.values())


def test_all_modules_are_left_as_they_were_also_after_an_error(monkeypatch: pytest.MonkeyPatch):
    model = network("llama")
    own = model.model.layers[-1].self_attn.o_proj
    own.forward = kept = lambda hidden: hidden
    monkeypatch.setattr(last_layer, "_at", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        losses(model, [EXAMPLES], 0)
    assert own.forward is kept
    assert [name for name, module in model.named_modules() if "forward" in vars(module)] == [
        "model.layers.1.self_attn.o_proj"
    ]
