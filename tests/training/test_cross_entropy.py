"""Losses and gradients as torch's own, whose gradient is the one tensor of the logits' size."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from dspy_diffusion_infill.training import cross_entropy as ours
from dspy_diffusion_infill.training.cross_entropy import cross_entropies


def drawn(rows: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits far apart, targets, and the weight of each row's loss."""
    source = torch.Generator().manual_seed(rows)
    logits = (20 * torch.randn(rows, 7, generator=source)).to(dtype).requires_grad_()
    return logits, torch.randint(0, 7, (rows,), generator=source), torch.randn(rows, generator=source)


@pytest.mark.parametrize("at_a_time", [1, 14, 21, 1000])  # logits: a row, two, three, all of seven each
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_losses_and_gradients_are_torchs(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, at_a_time: int):
    monkeypatch.setattr(ours, "_AT_A_TIME", at_a_time)
    logits, targets, weights = drawn(5, dtype)
    wanted = cross_entropy(logits.float(), targets, reduction="none")
    (gradient,) = torch.autograd.grad(wanted @ weights, logits)
    found = cross_entropies(1 * logits, targets)  # a head's result is no leaf either
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(torch.autograd.grad(found @ weights, logits)[0], gradient)


def test_the_gradient_lies_where_the_logits_lay():
    hidden, targets, weights = drawn(5)
    logits = 1 * hidden
    place = logits.data_ptr()
    gradients: list[torch.Tensor] = []
    logits.register_hook(gradients.append)
    (cross_entropies(logits, targets) @ weights).backward()
    assert gradients[0].data_ptr() == place


def test_a_target_of_no_float32_probability_costs_what_it_should():
    assert cross_entropies(torch.tensor([[0.0, -200.0]]), torch.tensor([1])).tolist() == [200.0]


def test_logits_without_a_gradient_are_left_as_they_are():
    logits, targets, _ = drawn(5)
    before = logits.detach().clone()
    cross_entropies(logits.detach(), targets)
    assert torch.equal(logits, before)


def test_a_gpu_works_on_more_at_a_time():
    sizes = [len(list(ours._chunks(torch.empty(1024, 2**15, device=device)))) for device in ("cpu", "meta")]
    assert sizes == [32, 1]


def test_no_rows_have_no_losses():
    logits, targets, _ = drawn(0)
    found = cross_entropies(1 * logits, targets)
    assert found.shape == (0,)
    found.sum().backward()
    assert logits.grad is not None


def test_a_second_backward_pass_is_refused():
    logits, targets, weights = drawn(5)
    total = cross_entropies(1 * logits, targets) @ weights
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        total.backward()
