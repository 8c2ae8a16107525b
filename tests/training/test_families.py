"""Published LLaDA and Dream checkpoints are trained, and what comes out is read again, here and elsewhere."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

from dspy_diffusion_infill.engine import checkpoint, dream
from dspy_diffusion_infill.engine.model import load
from dspy_diffusion_infill.engine.vocabulary import Vocabulary
from dspy_diffusion_infill.errors import ModelError
from dspy_diffusion_infill.prompts.canvas import Message
from dspy_diffusion_infill.training.data import encode
from dspy_diffusion_infill.training.finetune import Plan, finetune, prepare
from dspy_diffusion_infill.training.loss import IGNORED
from dspy_diffusion_infill.training.settings import Settings
from dspy_diffusion_infill.training.start import read_start
from dspy_diffusion_infill.training.updates import Updates
from tests.engine.checkpoints import PUBLISHED, make_tokenizer, published_weights, write_checkpoint
from tests.training.conftest import write_rows

pytestmark = pytest.mark.usefixtures("own_cache")

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|mask|>")


def write_dream(folder: Path) -> Path:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=400, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=4096, initializer_range=0.3, tie_word_embeddings=False,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(folder)
    settings = json.loads((folder / "config.json").read_text()) | {"model_type": "Dream"}
    (folder / "config.json").write_text(json.dumps(settings))
    make_tokenizer(SPECIAL).save(str(folder / "tokenizer.json"))
    return folder


def write_tied(folder: Path) -> Path:
    weights = published_weights()
    del weights["model.transformer.ff_out.weight"]
    return write_checkpoint(folder, dict(PUBLISHED, weight_tying=True), weights)


@pytest.fixture(params=["llada", "dream"])
def published(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "dream":
        return write_dream(tmp_path / "dream")
    return write_checkpoint(tmp_path / "llada", PUBLISHED, published_weights())


@pytest.fixture
def data(tmp_path: Path) -> str:
    return write_rows(tmp_path / "data.jsonl", [{"prompt": f"Rate {n}.", "response": "4"} for n in range(9)])


SETTINGS = Settings(
    learning_rate=1e-2, batch=2, num_batches=1, max_tokens=96, updates=1, held_out=1, use_cpu=True
)


def test_a_published_checkpoint_is_trained_and_read_again(published: Path, data: str, tmp_path: Path):
    start = read_start(str(published))
    assert start.family == published.name
    finetune(prepare(start, [data], SETTINGS), tmp_path / "out")
    ours, before = (
        load(str(folder), device="cpu", dtype="float32") for folder in (tmp_path / "out", published)
    )
    plain, report = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    ids = torch.tensor([[1, 30, 31, 32, 33]])
    wanted = torch.tensor([[False, False, True, True, False]])
    everything = torch.ones_like(wanted)
    shift = 1 if published.name == "dream" else 0
    logits = plain.eval()(input_ids=ids).logits[wanted.roll(-shift, 1)]
    torch.testing.assert_close(ours.logits(ids, everything, wanted), logits, atol=1e-4, rtol=1e-4)
    assert (before.logits(ids, everything, wanted) - logits).abs().max() > 1e-2


@pytest.fixture
def cut_short(monkeypatch: pytest.MonkeyPatch) -> Callable[[Plan, Path], None]:
    """Runs a plan until its third update is drawn."""

    def run(plan: Plan, output: Path) -> None:
        draw = Updates._draw

        def interrupted(self: Updates, update: int):
            if update == 2:
                raise KeyboardInterrupt
            return draw(self, update)

        with monkeypatch.context() as patched:
            patched.setattr(Updates, "_draw", interrupted)
            with pytest.raises(KeyboardInterrupt):
                finetune(plan, output)

    return run


@pytest.mark.parametrize(
    "write",
    [write_dream, write_tied, lambda folder: write_checkpoint(folder, PUBLISHED, published_weights())],
)
def test_a_published_checkpoints_run_cut_short_ends_as_an_uninterrupted_one(
    write: Callable[[Path], Path], data: str, tmp_path: Path, cut_short: Callable[[Plan, Path], None]
):
    settings = replace(SETTINGS, stages=("fs",), updates=3, save_updates=1)
    plan = prepare(read_start(str(write(tmp_path / "start"))), [data], settings)
    finetune(plan, tmp_path / "whole")
    cut_short(plan, tmp_path / "broken")
    finetune(plan, tmp_path / "broken")
    whole, broken = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "broken"))
    for name, value in whole.items():
        torch.testing.assert_close(broken[name], value, atol=1e-6, rtol=0)


def test_a_checkpoint_whose_weights_do_not_fit_is_not_gone_on_from(
    published: Path, data: str, tmp_path: Path, cut_short: Callable[[Plan, Path], None]
):
    settings = replace(SETTINGS, stages=("fs",), updates=3, save_updates=1)
    plan = prepare(read_start(str(published)), [data], settings)
    cut_short(plan, tmp_path / "out")
    path = tmp_path / "out-work" / "0-fs" / "checkpoint-1" / "model.safetensors"
    weights = load_file(path)
    weights["model.transformer.ln_f.weight"] = weights.pop("model.norm.weight")
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"'model\.norm\.weight' and 1 more do not fit\. Remove the run's"):
        finetune(plan, tmp_path / "out")


def test_parameters_of_a_hub_id_are_counted_without_fetching_its_weights(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fetched(source: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        ignored = [] if "*.safetensors" in allow_patterns else ["*.safetensors"]
        shutil.copytree(
            published, tmp_path / "hub", ignore=shutil.ignore_patterns(*ignored), dirs_exist_ok=True
        )
        return str(tmp_path / "hub")

    monkeypatch.setattr(checkpoint, "snapshot_download", fetched)
    looked_at = read_start("who/what", weights=False)
    assert not [*(tmp_path / "hub").glob("*.safetensors")]
    assert looked_at.num_parameters == read_start(str(published)).num_parameters
    assert read_start("who/what").num_parameters == looked_at.num_parameters
    assert [*(tmp_path / "hub").glob("*.safetensors")]


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ("[1]", "must hold a JSON object; got list"),
        ('{"model_type": "llada"}', "config.json of a published LLaDA must hold"),
        ('{"model_type": "qwen2", "vocab_size": 9}', "must hold max_position_embeddings, num_hidden_layers"),
    ],
)
def test_a_config_that_lacks_something_is_refused(config: str, why: str, published: Path):
    (published / "config.json").write_text(config)
    with pytest.raises(ModelError, match=why):
        read_start(str(published))


def test_weights_that_break_off_are_refused(published: Path):
    path = published / "model.safetensors"
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(
        ModelError, match=r"model\.safetensors' must hold whole weights: .*Fetch or save it again"
    ):
        read_start(str(published))


def test_the_system_turn_that_dream_adds_is_never_masked():
    vocabulary = Vocabulary(make_tokenizer(SPECIAL), dream.CHAT, 400)
    turns = [Message.text("user", "Rate it."), Message.text("assistant", "4")]
    example = encode(turns, vocabulary)
    free = [token for token, maskable in zip(example.ids, example.maskable, strict=True) if maskable]
    assert vocabulary.decode(free) == "Rate it.4<|im_end|>"
    assert not example.maskable[0], "the first token has no row before it to be read from"
    assert IGNORED not in example.ids


def test_a_context_is_what_the_family_was_trained_for(tmp_path: Path):
    """Dream's config says more; LLaDA's says it as `max_sequence_length`."""
    folder = write_dream(tmp_path / "dream")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 131072}))
    assert read_start(str(folder)).context_length == dream.CONTEXT_LENGTH
    settings = PUBLISHED | {"max_sequence_length": 77, "max_position_embeddings": 99}
    llada = write_checkpoint(tmp_path / "llada", settings, published_weights())
    assert read_start(str(llada)).context_length == 77
