"""A checkpoint's settings as plain transformers reads them: they name no code that is not beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import transformers


def make_plain(folder: Path) -> None:
    """Take what names a published model's own code out of a checkpoint's settings.

    Args:
        folder: Whose config.json and tokenizer_config.json are changed, where they name such code.
    """
    for name in ("config.json", "tokenizer_config.json"):
        path = folder / name
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):  # a tokenizer may have no settings, or ones that none reads
            continue
        if isinstance(found, dict) and (plain := _plain(found, folder)) != found:
            path.write_text(json.dumps(plain, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _plain(settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    plain = {name: value for name, value in settings.items() if name != "auto_map"}
    named = plain.get("tokenizer_class")
    if named is not None and not hasattr(transformers, named):
        qwen2 = (folder / "vocab.json").is_file()  # Dream is published with the files of Qwen2's tokenizer
        plain["tokenizer_class"] = "Qwen2Tokenizer" if qwen2 else "PreTrainedTokenizerFast"
    return plain
