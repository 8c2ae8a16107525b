"""The counts behind the benchmark's share of the roofline, by hand."""

from __future__ import annotations

import torch

from benchmarks.roofline import Counted, Peaks
from dspy_diffusion_infill.engine.keyvalues import KeyValues

# Of the tiny model: width 32, inner width 48, 4 heads of 8, 2 layers, 400 ids. A layer has
# 4 * 32 * 32 + 3 * 32 * 48 + 2 * 32 = 8768 weights, two have 17536; the head has 12800. A weight takes 4 B.


def test_a_full_pass_reads_all_weights_once_and_multiplies_them_for_every_token(model):
    counted = Counted(model.network, model.vocabulary, 128)
    ids = torch.full((2, 5), 9)
    wanted = torch.zeros(2, 5, dtype=torch.bool)
    wanted[0, 1] = wanted[1, :2] = True
    counted.logits(ids, torch.ones_like(wanted), wanted)
    # scores and mixture: 4 * 5 * 5 * 32 a row and layer; keys and values: 2 * 5 * 32 a row and layer
    layers = (2 * 10 * 17536 + 2 * 2 * 3200, 4 * (17536 + 2 * 2 * 320))
    assert counted.work == [layers, (2 * 3 * 12800, 4 * 12800)]


def test_a_later_pass_attends_to_what_is_kept(model):
    counted = Counted(model.network, model.vocabulary, 128)
    memory = KeyValues(1, 12)
    positions = torch.arange(10)[None]
    counted.encode(torch.full((1, 10), 9), positions, None, memory)
    memory.start = 10
    counted.encode(torch.full((1, 2), 9), positions[:, :2], None, memory)
    assert counted.work[1] == (2 * 2 * 17536 + 2 * 4 * 2 * 12 * 32, 4 * (17536 + 2 * 2 * 12 * 32))


def test_the_roofline_takes_the_slower_of_arithmetic_and_memory(model):
    counted = Counted(model.network, model.vocabulary, 128)
    counted.work = [(100.0, 10.0), (10.0, 100.0)]
    assert counted.least_seconds(Peaks(flops_per_s=10.0, bytes_per_s=50.0)) == 10.0 + 2.0
