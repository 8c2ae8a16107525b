from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForMaskedLM,
    FNetConfig,
    FNetForMaskedLM,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
)

from dspy_diffusion_infill.engine.infiller import DiffusionInfiller
from dspy_diffusion_infill.engine.model import TextModel, load
from dspy_diffusion_infill.errors import ModelError
from dspy_diffusion_infill.prompts.canvas import Canvas, Denoising, Masked, Message
from tests.engine.checkpoints import make_tokenizer

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
ROBERTA = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "rate",
    "the",
    "text",
    "##s",
    "from",
    "1",
    "to",
    "5",
    ".",
]


@pytest.fixture(scope="module")
def roberta_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("roberta")
    torch.manual_seed(0)
    config = RobertaConfig(vocab_size=400, max_position_embeddings=66, pad_token_id=1, **SIZES)
    RobertaForMaskedLM(config).save_pretrained(folder)
    names = {"cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>", "mask_token": "<mask>"}
    PreTrainedTokenizerFast(tokenizer_object=make_tokenizer(ROBERTA), **names).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def roberta(roberta_folder):
    return load(str(roberta_folder), device="cpu")


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(WORDS), max_position_embeddings=40, **SIZES)
    BertForMaskedLM(config).save_pretrained(folder)
    vocab = {word: index for index, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "mask_token": "[MASK]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", **names).save_pretrained(folder)
    return load(str(folder), device="cpu")


def test_logits_are_those_of_transformers_at_the_wanted_positions(roberta, roberta_folder):
    ids = torch.randint(5, 380, (2, 9), generator=torch.Generator().manual_seed(1))
    ids[1, 6:] = 1
    given = ids != 1
    wanted = torch.zeros(2, 9, dtype=torch.bool)
    wanted[0, 2] = wanted[0, 7] = wanted[1, 0] = True
    plain = RobertaForMaskedLM.from_pretrained(roberta_folder).eval()
    with torch.no_grad():
        expected = plain(input_ids=ids, attention_mask=given.long()).logits[wanted]
    torch.testing.assert_close(roberta.logits(ids, given, wanted), expected, atol=1e-5, rtol=1e-5)
    assert not roberta.network.base_model._forward_hooks


def test_a_byte_level_masked_lm_infills(roberta):
    assert isinstance(roberta, TextModel)
    canvas = Canvas((Message("system", ("Rate", Masked(3), " <mask> 5.")), Message.text("user", "Fine.")))
    (fillings,) = DiffusionInfiller(roberta).infill([canvas], num_candidates=3, seed=0)
    assert len({one.texts for one in fillings}) > 1
    encode = roberta.vocabulary.encode
    laid_out = roberta.vocabulary.lay_out(canvas.messages).ids
    assert laid_out == [0, *encode("Rate"), 4, 4, 4, *encode(" <mask> 5."), 2, *encode("Fine."), 2]


def test_a_word_piece_masked_lm_infills_words(bert):
    canvas = Canvas((Message("user", ("Rate the text", Masked(2), " 1 to 5. [MASK]")),))
    (fillings,) = DiffusionInfiller(bert).infill([canvas], num_candidates=4, seed=0)
    assert all(set("".join(one.texts).split()) <= {*WORDS[5:], "texts", "s"} for one in fillings)
    assert bert.vocabulary.lay_out(canvas.messages).ids.count(4) == 2


def test_positions_behind_robertas_padding_id_are_not_counted(roberta, bert):
    assert roberta.context_length == 64
    assert bert.context_length == 40
    full = torch.full((1, 64), 7)
    assert roberta.logits(full, full == 7, full == 7).shape == (64, 400)


def test_weights_of_other_heads_are_left_aside(roberta_folder, tmp_path):
    shutil.copytree(roberta_folder, tmp_path, dirs_exist_ok=True)
    weights = load_file(tmp_path / "model.safetensors") | {"roberta.pooler.dense.bias": torch.zeros(32)}
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert load(str(tmp_path)).context_length == 64


def test_a_masked_lm_without_its_head_is_refused(roberta_folder, tmp_path):
    body = RobertaForMaskedLM.from_pretrained(roberta_folder).roberta
    body.save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((roberta_folder / name).read_bytes())
    with pytest.raises(ModelError, match="missing: lm_head"):
        load(str(tmp_path))


def test_a_config_that_asks_for_tuples_changes_nothing(roberta, roberta_folder, tmp_path):
    folder = shutil.copytree(roberta_folder, tmp_path / "tuples")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "return_dict": False}))
    ids = torch.tensor([[0, 9, 4, 2]])
    everywhere = torch.ones_like(ids, dtype=torch.bool)
    found = load(str(folder), device="cpu").logits(ids, everywhere, everywhere)
    assert torch.equal(found, roberta.logits(ids, everywhere, everywhere))


def test_an_architecture_that_does_not_heed_padding_is_refused(roberta_folder, tmp_path):
    folder = shutil.copytree(roberta_folder, tmp_path / "fnet")
    torch.manual_seed(0)
    sizes = {name: size for name, size in SIZES.items() if name != "num_attention_heads"}
    FNetForMaskedLM(FNetConfig(vocab_size=400, max_position_embeddings=66, **sizes)).save_pretrained(folder)
    with pytest.raises(ModelError, match=r"FNetForMaskedLM does not heed padding. Take a BERT"):
        load(str(folder), device="cpu")


def test_a_masked_lm_without_tokenizer_files_is_refused(roberta_folder, tmp_path):
    folder = shutil.copytree(roberta_folder, tmp_path / "bare")
    for path in folder.glob("*token*"):
        path.unlink()
    with pytest.raises(ModelError, match=r"tokenizer"):
        load(str(folder), device="cpu")


def test_a_bert_without_vocabulary_is_refused(tmp_path):
    BertForMaskedLM(BertConfig(vocab_size=40, max_position_embeddings=40, **SIZES)).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"must hold tokens that stand for text; it holds 5 others alone"):
        load(str(tmp_path), device="cpu")


def test_a_masked_lm_of_impossible_sizes_is_one_sentence(roberta_folder, tmp_path):
    folder = shutil.copytree(roberta_folder, tmp_path / "odd")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_attention_heads": 5}))
    with pytest.raises(ModelError, match=r"cannot be read: .*"):
        load(str(folder), device="cpu")


def test_fillings_hold_no_mark_of_a_word_that_goes_on(bert):
    canvas = Canvas((Message("system", ("rate the text", Masked(2), ".")),))
    hot = DiffusionInfiller(bert, Denoising(temperature=3.0))
    (fillings,) = hot.infill([canvas], num_candidates=40, seed=0)
    assert all("##" not in filling.texts[0] for filling in fillings)
    assert any(filling.texts[0].startswith("s") for filling in fillings)
