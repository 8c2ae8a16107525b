"""A tiny model with its vocabulary, and a folder of made-up reviews."""

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from dspy_diffusion_infill.engine.llada import CHAT
from dspy_diffusion_infill.engine.vocabulary import Vocabulary
from dspy_diffusion_infill.training import embedded
from dspy_diffusion_infill.training.embedded import _config, _corpus, _save, train_tokenizer
from dspy_diffusion_infill.training.recipe import Recipe
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
def tokenizer(real: Path) -> Tokenizer:
    """The one that `build` makes."""
    return train_tokenizer(_corpus(RealReviews(real), TINY.seed), TINY.vocab_size)


@pytest.fixture
def ready_tokenizer(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spares `build` the making of its tokenizer, which takes longer than all the rest."""
    monkeypatch.setattr(embedded, "train_tokenizer", lambda corpus, vocab_size: tokenizer)


@pytest.fixture(scope="session")
def vocabulary(tokenizer: Tokenizer) -> Vocabulary:
    return Vocabulary(tokenizer, CHAT, TINY.vocab_size)


@pytest.fixture(scope="session")
def world(real: Path, vocabulary: Vocabulary) -> World:
    return World(RealReviews(real), vocabulary)


@pytest.fixture
def model(vocabulary: Vocabulary) -> LlamaForCausalLM:
    return LlamaForCausalLM(_config(TINY, vocabulary))


@pytest.fixture(scope="session")
def checkpoint(
    tokenizer: Tokenizer, vocabulary: Vocabulary, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The tiny model on disk, as training starts from one."""
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    torch.manual_seed(0)
    _save(LlamaForCausalLM(_config(TINY, vocabulary)), tokenizer, vocabulary, folder)
    return folder


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps what `datasets` converts out of the user's cache."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")


def write_rows(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)
