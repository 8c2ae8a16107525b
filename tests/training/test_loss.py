"""The loss, by hand on three tokens."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from dspy_diffusion_infill.training.loss import IGNORED, masked_losses
from dspy_diffusion_infill.training.trainer import MaskedDiffusionTrainer


class Lookup(nn.Module):
    """Hidden states are one-hot token ids; the head is a table of logits. Counts the rows its head saw."""

    def __init__(self, table: torch.Tensor) -> None:
        super().__init__()
        self.head = nn.Linear(*table.T.shape, bias=False)
        self.head.weight.data = table.T.clone()
        self.rows: list[int] = []
        self.head.register_forward_hook(lambda _, hidden, out: self.rows.append(len(out)))

    def get_output_embeddings(self) -> nn.Linear:
        return self.head

    def get_decoder(self):
        return SimpleNamespace(layers=[nn.Identity()])

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, use_cache: bool):
        hidden = nn.functional.one_hot(input_ids, self.head.in_features).float()
        return SimpleNamespace(logits=self.head(hidden))


MASK = 2
TABLE = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [math.log(6), math.log(3), 0.0]])
"""At the mask token the model gives token 0, 1, 2 probabilities .6, .3, .1."""


def losses(labels: list[list[int]]) -> list[float]:
    ids = torch.tensor([[MASK if label != IGNORED else 0 for label in row] for row in labels])
    return masked_losses(Lookup(TABLE), ids, torch.tensor(labels), torch.ones_like(ids)).tolist()


def test_each_masked_token_costs_minus_the_log_of_its_probability():
    found = losses([[0, IGNORED, 1]])
    assert found == pytest.approx([-math.log(0.6), -math.log(0.3)])


def test_rows_come_first_then_positions():
    found = losses([[IGNORED, 1, IGNORED], [0, IGNORED, 1]])
    assert found == pytest.approx([-math.log(0.3), -math.log(0.6), -math.log(0.3)])


def test_the_head_sees_masked_rows_only_and_is_left_as_it_was():
    model = Lookup(TABLE)
    ids = torch.tensor([[MASK, 0, 0, MASK]])
    labels = torch.tensor([[0, IGNORED, IGNORED, 1]])
    masked_losses(model, ids, labels, torch.ones_like(ids))
    assert model.rows == [2]
    assert model(ids, torch.ones_like(ids), use_cache=False).logits.shape == (1, 4, 3)


def test_weights_weigh_tokens_and_their_sum_divides():
    """Also where the labels begin a row, which transformers' own count takes for a causal model's."""
    inputs = {
        "input_ids": torch.tensor([[MASK, 0, MASK]]),
        "labels": torch.tensor([[0, IGNORED, 1]]),
        "attention_mask": torch.ones(1, 3, dtype=torch.long),
    }
    trainer = SimpleNamespace(shift=0, accelerator=SimpleNamespace(gather=lambda total: total))

    def loss(batch: dict[str, torch.Tensor]) -> float:
        return MaskedDiffusionTrainer.compute_loss(trainer, Lookup(TABLE), batch).item()

    assert loss(inputs) == pytest.approx((-math.log(0.6) - math.log(0.3)) / 2)
    weighted = inputs | {"weights": torch.tensor([[3.0, 0.0, 1.0]])}
    assert loss(weighted) == pytest.approx((-3 * math.log(0.6) - math.log(0.3)) / 4)
    count = MaskedDiffusionTrainer._get_num_items_in_batch
    assert float(count(trainer, [inputs, inputs], torch.device("cpu"))) == 4
    assert float(count(trainer, [weighted], torch.device("cpu"))) == 4.0
    assert count(trainer, [], torch.device("cpu")) is None
