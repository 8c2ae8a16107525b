"""What `load` shares, names and refuses."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from dspy_diffusion_infill.engine import checkpoint
from dspy_diffusion_infill.engine.infiller import DiffusionInfiller
from dspy_diffusion_infill.engine.model import MaskPredictor, TextModel, ToyModel, load
from dspy_diffusion_infill.errors import ModelError, SettingsError
from dspy_diffusion_infill.prompts.canvas import Canvas, Masked, Message
from tests.engine.checkpoints import (
    PUBLISHED,
    make_tokenizer,
    published_weights,
    write_checkpoint,
    write_llama_shaped,
)


@pytest.fixture
def folder(tmp_path):
    return write_checkpoint(tmp_path / "llada", PUBLISHED, published_weights())


def test_what_is_loaded_is_a_text_model_and_the_toy_a_mask_predictor(model):
    assert isinstance(model, TextModel)
    assert isinstance(ToyModel(torch.tensor([1]), 3, 2), MaskPredictor)


def test_loading_twice_shares_the_weights(folder):
    assert load(str(folder)) is load(str(folder))


def test_other_weights_have_another_name(folder, tmp_path):
    other = write_checkpoint(tmp_path / "other" / "llada", PUBLISHED, published_weights(seed=1))
    assert load(str(folder)).name != load(str(other)).name
    moved = shutil.copytree(folder, tmp_path / "moved" / "llada")
    assert load(str(folder)).name == load(str(moved)).name


def test_the_name_holds_no_path_and_tells_the_precision(folder):
    assert load(str(folder), device="cpu").name.startswith("llada@")
    assert load(str(folder), device="cpu").name.endswith(":float32")
    assert load(str(folder), dtype="bfloat16").name.endswith(":bfloat16")


def test_weights_go_when_nobody_holds_them(folder):
    name = load(str(folder)).name
    with (folder / "config.json").open("a") as file:
        file.write(" ")
    assert load(str(folder)).name != name


def test_every_weight_is_looked_at(folder, monkeypatch):
    monkeypatch.setattr(checkpoint, "_SAMPLE_BYTES", 8)  # as few of these weights as 4096 are of gigabytes
    names = set()
    before = checkpoint.fingerprint(folder)
    for name in (weights := published_weights()):
        last = weights[name].flatten()
        last[-1] += 1
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        names.add(checkpoint.fingerprint(folder))
        last[-1] -= 1
    assert len(names - {before}) == len(weights)


def test_a_damaged_header_is_one_sentence(folder):
    (folder / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(ModelError, match=r"The weights in .* cannot be read"):
        load(str(folder))


def edit_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"model must be 'embedded', a folder, or a hub id; got '.*nowhere'"):
        load(str(tmp_path / "nowhere"))


def test_a_hub_id_that_cannot_be_fetched_is_refused():
    with pytest.raises(
        ModelError, match="got 'nobody/no-such-model': no such folder, and the Hugging Face hub"
    ):
        load("nobody/no-such-model")


def test_a_folder_without_config_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"must hold config.json; the folder .* has none"):
        load(str(tmp_path))


def test_a_config_that_is_not_json_is_refused(folder):
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config.json' must be JSON"):
        load(str(folder))


def test_an_unknown_architecture_is_named_with_what_is_supported(folder):
    edit_config(folder, model_type="gpt2")
    with pytest.raises(ModelError, match=r"model_type must be 'llada', 'Dream', .* config.json says 'gpt2'"):
        load(str(folder))


def test_a_causal_llama_is_refused(folder):
    edit_config(folder, model_type="llama")
    with pytest.raises(ModelError, match=r"says 'llama' without \"is_causal\": false, a causal model"):
        load(str(folder))


def test_pickle_weights_are_refused_with_the_reason(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"found pytorch_model.bin: a pickle, and loading one runs code"):
        load(str(folder))


def test_broken_safetensors_are_refused(folder):
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="cannot be read"):
        load(str(folder))


def test_a_missing_weight_is_named(folder):
    weights = published_weights()
    del weights["model.transformer.blocks.1.ff_out.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"missing: model.layers.1.mlp.down_proj.weight"):
        load(str(folder))


def test_a_weight_left_over_is_named(folder):
    weights = {**published_weights(), "model.transformer.blocks.7.q_norm.weight": torch.ones(8)}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"unexpected: model.transformer.blocks.7.q_norm.weight"):
        load(str(folder))


def test_a_weight_of_another_shape_is_refused(folder):
    weights = {**published_weights(), "model.transformer.ln_f.weight": torch.ones(8)}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"exactly; mismatched: .*model\.norm\.weight"):
        load(str(folder))


def test_a_tokenizer_without_a_mask_token_is_refused(folder):
    text = (folder / "tokenizer.json").read_text().replace("<|mdm_mask|>", "<|other|>")
    (folder / "tokenizer.json").write_text(text)
    with pytest.raises(
        ModelError, match=r"The tokenizer must hold <\|mdm_mask\|>.*; it lacks <\|mdm_mask\|>"
    ):
        load(str(folder))


def test_a_tokenizer_with_more_ids_than_the_model_is_refused(folder):
    tokenizer = make_tokenizer()
    tokenizer.add_tokens([f"extra{index}" for index in range(30)])
    tokenizer.save(str(folder / "tokenizer.json"))
    with pytest.raises(ModelError, match=r"ids must be below 400, the rows of weights; got 409"):
        load(str(folder))


def test_a_mask_id_that_the_tokenizer_contradicts_is_refused(folder):
    edit_config(folder, mask_token_id=399)
    with pytest.raises(
        ModelError, match=r"mask_token_id must be 2, the tokenizer's <\|mdm_mask\|>; .* says 399"
    ):
        load(str(folder))


@pytest.mark.parametrize(
    "change",
    [{"d_model": None}, {"n_heads": 5}, {"n_heads": "4"}, {"rope_theta": None}, {"embedding_size": None}],
)
def test_a_size_that_makes_no_model_is_one_sentence(folder, change):
    edit_config(folder, **change)
    with pytest.raises(ModelError) as caught:
        load(str(folder))
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value) or "config.json" in str(caught.value)


def test_a_config_that_is_no_object_is_refused(folder):
    (folder / "config.json").write_text("[]")
    with pytest.raises(ModelError, match=r"must hold a JSON object; got list"):
        load(str(folder))


def test_a_broken_index_is_one_sentence(folder):
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    (folder / "model.safetensors.index.json").write_text("{")
    with pytest.raises(ModelError, match=r"The weights in .* cannot be read"):
        load(str(folder))


def test_a_base_model_without_headers_reads_turns_parted_by_blank_lines(folder):
    """LLaDA-8B-Base's tokenizer has no header tokens."""
    special = ("<|startoftext|>", "<|endoftext|>", "<|mdm_mask|>")
    make_tokenizer(special).save(str(folder / "tokenizer.json"))
    model = load(str(folder))
    turns = [Message.text("system", "Rate it."), Message.text("user", "It ends!")]
    start, *ids = model.vocabulary.lay_out(turns).ids
    assert (start, model.vocabulary.decode(ids)) == (0, "Rate it.\n\nIt ends!\n\n")
    assert model.vocabulary.stop_ids == {1}
    canvas = Canvas((Message("user", ("Rate", Masked(3), ".")),))
    ((filling,),) = DiffusionInfiller(model).infill([canvas], num_candidates=1, seed=0)
    assert filling.texts[0]


def test_illada_is_a_llama_with_a_mask_start_and_end_of_its_own(tmp_path):
    """Its class and its mask <[MASK]>, id 5, are those of its card; names of weights are Llama's."""
    folder = write_llama_shaped(tmp_path / "illada")
    special = ("<s>", "<|pad|>", "</s>", "<unk>", "<|sep|>", "<[MASK]>")
    make_tokenizer(special).save(str(folder / "tokenizer.json"))
    plain = load(str(write_llama_shaped(tmp_path / "plain")))
    edit_config(
        folder,
        model_type="illada",
        architectures=["ILLaDAForCausalLM"],
        is_causal=None,
        bos_token_id=0,
        eos_token_id=2,
    )
    model = load(str(folder))
    assert (model.mask_token_id, model.vocabulary.stop_ids) == (5, {2})
    assert model.vocabulary.lay_out([Message.text("user", "It ends!")]).ids[0] == 0
    ids = torch.tensor([[7, 8, 9, 10]])
    everywhere = torch.ones_like(ids, dtype=torch.bool)
    assert torch.equal(model.logits(ids, everywhere, everywhere), plain.logits(ids, everywhere, everywhere))


def test_a_pickle_on_the_hub_is_refused_with_the_reason(tmp_path, monkeypatch):
    def fetched(source, *, revision, allow_patterns):
        assert "*.bin" not in allow_patterns
        return str(tmp_path)

    monkeypatch.setattr(checkpoint, "snapshot_download", fetched)
    names = ["config.json", "pytorch_model.bin"]
    monkeypatch.setattr(checkpoint.HfApi, "list_repo_files", lambda *_, **__: names)
    with pytest.raises(ModelError, match=r"in 'who/what' found pytorch_model.bin: a pickle"):
        load("who/what")


def test_an_unknown_device_map_is_one_sentence(folder):
    with pytest.raises(ModelError, match=r"cannot be read: .*sideways|cannot be read: .*device_map"):
        load(str(folder), device_map="sideways")


def test_a_folder_has_no_revisions(folder):
    with pytest.raises(SettingsError, match=r"revision must be None for a folder; got 'main'"):
        load(str(folder), revision="main")


def test_a_folder_without_tokenizer_is_refused(folder):
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"must hold tokenizer.json"):
        load(str(folder))


def test_a_broken_tokenizer_is_refused(folder):
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="is not a tokenizer"):
        load(str(folder))


def test_an_unknown_device_or_precision_is_refused(folder):
    with pytest.raises(SettingsError, match=r"device must be 'auto' or a torch device .* got 'gpu'"):
        load(str(folder), device="gpu")
    with pytest.raises(SettingsError, match=r"device must be one that computes .*; got 'meta'"):
        load(str(folder), device="meta")
    with pytest.raises(SettingsError, match=r"dtype must be 'auto', 'float32'.* got 'int3'"):
        load(str(folder), dtype="int3")
