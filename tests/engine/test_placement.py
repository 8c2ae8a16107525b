from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from dspy_diffusion_infill.engine.model import load
from dspy_diffusion_infill.engine.placement import Placement, cap_memory, choose_placement
from dspy_diffusion_infill.errors import MissingExtraError, SettingsError
from tests.engine.checkpoints import make_tokenizer


def without(monkeypatch, name):
    """Makes a package look as if it were not installed."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda wanted, *rest: None if wanted == name else find(wanted, *rest)
    )


def test_auto_is_float32_on_a_cpu_and_bfloat16_on_a_gpu():
    assert choose_placement("cpu", "auto", None, None) == Placement(torch.device("cpu"), torch.float32)
    assert choose_placement("cuda:1", "auto", None, None).dtype == torch.bfloat16


def test_weights_go_straight_to_a_gpu_and_stay_where_they_are_on_a_cpu():
    assert choose_placement("cpu", "auto", None, None).arguments() == {"dtype": torch.float32}
    assert choose_placement("cuda:1", "float16", None, None).arguments() == {
        "dtype": torch.float16,
        "device_map": "cuda:1",
    }
    assert choose_placement("cuda", "auto", "auto", None).arguments()["device_map"] == "auto"


def test_bits_are_told_to_transformers_and_in_the_name():
    placement = Placement(torch.device("cuda"), torch.bfloat16, bits=4)
    config = placement.arguments()["quantization_config"]
    assert (config.load_in_4bit, config.load_in_8bit) == (True, False)
    assert config.bnb_4bit_compute_dtype == torch.bfloat16
    assert str(placement) == "4bit:bfloat16"
    assert (
        Placement(torch.device("cuda"), torch.bfloat16, bits=8)
        .arguments()["quantization_config"]
        .load_in_8bit
    )


def test_what_is_not_installed_is_named_with_the_way_to_get_it(monkeypatch, llama_shaped):
    without(monkeypatch, "bitsandbytes")
    with pytest.raises(SettingsError, match=r"bits must be None without bitsandbytes; got 4\. Install it"):
        load(str(llama_shaped), bits=4)
    without(monkeypatch, "accelerate")
    with pytest.raises(MissingExtraError, match=r"A device map needs .*\[engine\]"):
        load(str(llama_shaped), device_map="auto")


def test_settings_that_cannot_be_are_refused(llama_shaped):
    with pytest.raises(SettingsError, match="bits must be 4, 8 or None; got 3"):
        load(str(llama_shaped), bits=3)
    with pytest.raises(SettingsError, match=r"memory_gb must be None on cpu; got 20\.0"):
        load(str(llama_shaped), device="cpu", memory_gb=20.0)


def test_a_memory_cap_is_a_share_of_the_gpu(monkeypatch):
    class Gpu:
        total_memory = 80_000_000_000

    capped = []
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Gpu)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *given: capped.append(given))
    gpu = torch.device("cuda:0")
    cap_memory(gpu, 20.0)
    assert capped == [(0.25, gpu)]
    with pytest.raises(SettingsError, match="memory_gb must be above 0 and at most 80; got 81"):
        cap_memory(gpu, 81)


def test_a_device_map_computes_what_one_device_computes(llama_shaped, model):
    mapped = load(str(llama_shaped), device="cpu", device_map="cpu")
    assert mapped is not model
    ids = torch.arange(9, 40)[None]
    everywhere = torch.ones_like(ids, dtype=torch.bool)
    torch.testing.assert_close(
        mapped.logits(ids, everywhere, everywhere), model.logits(ids, everywhere, everywhere)
    )


PEAK = """
import json, os, sys, threading, time
from pathlib import Path

def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("RssAnon")).split()[1])

from dspy_diffusion_infill.engine.model import load
load(sys.argv[1], device="cpu")  # imports

def measure(folder):
    before, seen, done = anonymous(), [], threading.Event()

    def watch():
        while not done.is_set():
            seen.append(anonymous())
            time.sleep(0.0005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    model = load(folder, device="cpu")
    done.set()
    watcher.join()
    final = sum(weight.numel() * weight.element_size() for weight in model.network.parameters())
    held = anonymous() - before
    return {"final": final, "transient": max(seen) - before - held, "held": held}

for folder in sys.argv[2:]:  # each in a process that has freed nothing yet
    if not os.fork():
        Path(folder, "measured.json").write_text(json.dumps(measure(folder)))
        os._exit(0)
    os.wait()
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="counts anonymous pages as Linux does")
def test_loading_several_shards_takes_hardly_more_memory_than_the_weights(llama_shaped, tmp_path):
    config = LlamaConfig(
        vocab_size=4096,
        hidden_size=512,
        intermediate_size=1536,
        num_hidden_layers=8,
        num_attention_heads=8,
        is_causal=False,
    )
    network = LlamaForCausalLM(config)
    folders = [tmp_path / "float32", tmp_path / "bfloat16"]
    for saved, folder in zip((torch.float32, torch.bfloat16), folders, strict=True):
        network.to(saved).save_pretrained(folder, max_shard_size="25MB")
        make_tokenizer().save(str(folder / "tokenizer.json"))
        assert len(list(folder.glob("*.safetensors"))) >= 3
    command = [sys.executable, "-c", PEAK, str(llama_shaped), *map(str, folders)]
    subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True)
    for folder in folders:
        measured = json.loads((folder / "measured.json").read_text())
        # weights that are mapped from the file are no anonymous memory, and count as well
        mapped = measured["final"] if measured["held"] < measured["final"] / 2 else 0
        assert mapped + measured["held"] + measured["transient"] <= 1.15 * measured["final"], measured
