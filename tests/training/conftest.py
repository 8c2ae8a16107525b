"""A tiny model with its vocabulary, and a folder of made-up reviews."""

import json
from pathlib import Path

import pytest
from transformers import LlamaForCausalLM

from dspy_diffusion_infill.engine.llada import CHAT
from dspy_diffusion_infill.engine.vocabulary import Vocabulary
from dspy_diffusion_infill.training.embedded import Recipe, _config, _corpus, train_tokenizer
from dspy_diffusion_infill.training.world import RealReviews, Stage, World

TINY = Recipe(
    hidden_size=16,
    intermediate_size=24,
    num_layers=1,
    num_heads=2,
    vocab_size=600,
    batch_tokens=300,
    stages=(
        Stage(name="start", num_updates=2, learning_rate=1e-3, real_share=0.5),
        Stage(name="fs", num_updates=4, learning_rate=1e-3),
        Stage(name="ro", num_updates=2, learning_rate=1e-3, objectives=("ro",)),
    ),
)


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real")
    rows = [{"text": f"made-up review number {n}", "label": n % 5} for n in range(20)]
    (folder / "sst5_train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="session")
def vocabulary(real: Path) -> Vocabulary:
    tokenizer = train_tokenizer(_corpus(RealReviews(real), seed=0), TINY.vocab_size)
    return Vocabulary(tokenizer, CHAT, TINY.vocab_size)


@pytest.fixture(scope="session")
def world(real: Path, vocabulary: Vocabulary) -> World:
    return World(RealReviews(real), vocabulary)


@pytest.fixture
def model(vocabulary: Vocabulary) -> LlamaForCausalLM:
    return LlamaForCausalLM(_config(TINY, vocabulary))
