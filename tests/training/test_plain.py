"""What training leaves behind names no code of the model that it started from."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoTokenizer

from dspy_diffusion_infill.engine import dream
from dspy_diffusion_infill.training.plain import make_plain
from tests.engine.checkpoints import make_tokenizer

OWN_CODE: dict[str, Any] = {
    "config.json": {"auto_map": {"AutoConfig": "configuration_dream.DreamConfig"}},
    "tokenizer_config.json": {"auto_map": {"AutoTokenizer": ["tokenization_dream.DreamTokenizer", None]}},
}


def write_settings(folder: Path, tokenizer_class: str) -> None:
    config = {"model_type": "qwen2", "vocab_size": 400}
    words = {"tokenizer_class": tokenizer_class, "mask_token": "<|mask|>"}
    for name, settings in (("config.json", config), ("tokenizer_config.json", words)):
        (folder / name).write_text(json.dumps(settings | OWN_CODE[name]))


def write_words(folder: Path) -> None:
    """As Dream is published: Qwen2's two files, the special tokens behind all words."""
    spec = json.loads(make_tokenizer([]).to_str())["model"]
    (folder / "vocab.json").write_text(json.dumps(spec["vocab"]))
    merges = (" ".join(pair) for pair in spec["merges"])
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges))
    added = {token: len(spec["vocab"]) + n for n, token in enumerate(sorted({*dream.CHAT.special_tokens}))}
    (folder / "added_tokens.json").write_text(json.dumps(added))


@pytest.mark.parametrize("words", ["two files", "tokenizer.json"])
def test_config_and_tokenizer_of_a_published_dream_load_in_plain_transformers(words: str, tmp_path: Path):
    write_settings(tmp_path, "DreamTokenizer")
    if words == "two files":
        write_words(tmp_path)
    else:
        make_tokenizer(dream.CHAT.special_tokens).save(str(tmp_path / "tokenizer.json"))
    make_plain(tmp_path)
    tokenizer: Any = AutoTokenizer.from_pretrained(tmp_path)
    ours: Tokenizer = dream.tokenizer_of(tmp_path)
    assert tokenizer.mask_token == "<|mask|>"
    assert tokenizer("Rate <|mask|> it.")["input_ids"] == ours.encode("Rate <|mask|> it.").ids
    config = AutoConfig.from_pretrained(tmp_path, trust_remote_code=True)
    assert config.vocab_size == 400
    assert not any("auto_map" in (tmp_path / name).read_text() for name in OWN_CODE)


def test_settings_that_name_no_code_stay_as_they_are(tmp_path: Path):
    texts = {"config.json": '{ "model_type":"llama"}', "tokenizer_config.json": "broken"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    make_plain(tmp_path)
    assert {name: (tmp_path / name).read_text() for name in texts} == texts
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer", "auto_map": {}}')
    make_plain(tmp_path)
    assert json.loads((tmp_path / "tokenizer_config.json").read_text()) == {
        "tokenizer_class": "LlamaTokenizer"
    }
