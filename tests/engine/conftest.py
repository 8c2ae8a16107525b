"""Fixtures: tiny checkpoints on disk and in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from dspy_diffusion_infill.engine.model import TextModel, load
from tests.engine.checkpoints import PUBLISHED, published_weights, write_checkpoint, write_llama_shaped


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaDA checkpoint in the published layout."""
    return write_checkpoint(tmp_path_factory.mktemp("published") / "llada", PUBLISHED, published_weights())


@pytest.fixture(scope="session")
def llama_shaped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaDA checkpoint in the layout this project saves."""
    return write_llama_shaped(tmp_path_factory.mktemp("llama_shaped") / "tiny")


@pytest.fixture(scope="session")
def model(llama_shaped: Path) -> TextModel:
    """A loaded tiny model."""
    return load(str(llama_shaped), device="cpu")
