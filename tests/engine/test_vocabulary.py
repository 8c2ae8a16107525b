from __future__ import annotations

import pickle

from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from dspy_diffusion_infill.engine.llada import CHAT
from dspy_diffusion_infill.engine.vocabulary import ChatFormat, Vocabulary
from dspy_diffusion_infill.prompts.canvas import Masked, Message
from tests.engine.checkpoints import GPT2_WORDS, SPECIAL, make_tokenizer

tokenizer = make_tokenizer()
vocabulary = Vocabulary(tokenizer, CHAT, 400)
MASK = tokenizer.token_to_id("<|mdm_mask|>")
texts = st.text() | st.lists(st.sampled_from([*SPECIAL, " ", "\r\n", "é", "👩‍👩‍👧", "text", "\u202e"])).map(
    "".join
)


@given(texts)
def test_any_text_comes_back_from_its_tokens(text):
    assert vocabulary.decode(vocabulary.encode(text)) == text


@given(texts)
def test_typed_special_tokens_are_text(text):
    assert vocabulary.banned_ids.isdisjoint(vocabulary.encode(text))


@given(texts)
def test_offsets_cover_the_text_without_a_gap(text):
    offsets = vocabulary.offsets(text)
    assert len(offsets) == len(vocabulary.encode(text))
    reached = 0
    for start, end in offsets:
        assert start <= reached <= end
        reached = end
    assert reached == len(text)


def test_a_leading_space_belongs_to_its_token():
    assert vocabulary.offsets("Rate is") == [(0, 4), (4, 7)]


def test_special_tokens_and_rows_without_a_token_are_banned():
    size = tokenizer.get_vocab_size()
    assert vocabulary.banned_ids == {*map(tokenizer.token_to_id, SPECIAL), *range(size, 400)}


def test_a_conversation_is_tokenized_as_the_published_template_writes_it():
    messages = [Message.text("system", " Rate the text.\n"), Message.text("user", "It\nends!")]
    template = (
        "<|startoftext|><|start_header_id|>system<|end_header_id|>\n\nRate the text.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nIt\nends!<|eot_id|>"
    )
    assert vocabulary.lay_out(messages).ids == tokenizer.encode(template, add_special_tokens=False).ids
    answer = template + "<|start_header_id|>assistant<|end_header_id|>\n\n"
    laid_out = vocabulary.lay_out(messages, answer_tokens=2)
    assert laid_out.ids == [*tokenizer.encode(answer, add_special_tokens=False).ids, MASK, MASK]
    assert laid_out.masked == (range(len(laid_out.ids) - 2, len(laid_out.ids)),)


def test_a_header_is_the_same_before_text_and_before_masks():
    # GPT-2's pieces split the line ends before a word, and not those at the end.
    other = Vocabulary(make_tokenizer(words=GPT2_WORDS), CHAT, 400)
    assert len(other.encode("\n\n")) < len(other.encode("\n\nRate")) - len(other.encode("Rate"))
    before_text = other.lay_out([Message.text("assistant", "Rate")])
    before_masks = other.lay_out([], answer_tokens=1)
    start = before_masks.masked[0].start
    assert before_text.contents == (range(start, start + len(other.encode("Rate"))),)
    assert before_text.ids[:start] == before_masks.ids[:start]


def test_masks_are_placed_by_id_and_only_where_asked():
    message = Message("user", ("Rate <|mdm_mask|>", Masked(3), " from", Masked(1)))
    laid_out = vocabulary.lay_out([message])
    first, second = laid_out.masked
    assert [len(first), len(second)] == [3, 1]
    assert [at for at, token in enumerate(laid_out.ids) if token == MASK] == [*first, *second]
    assert vocabulary.decode(laid_out.ids[first.stop : second.start]) == " from"


def test_a_text_cut_in_two_is_tokenized_as_it_reads():
    whole = vocabulary.lay_out([Message.text("user", "Rate the review")])
    assert vocabulary.lay_out([Message("user", ("Rate the re", "view"))]) == whole


def test_spaces_beside_a_mask_are_kept_and_those_at_the_ends_trimmed():
    laid_out = vocabulary.lay_out([Message("user", ("  Rate ", Masked(1), " it "))])
    assert laid_out.contents == (range(laid_out.contents[0].start, len(laid_out.ids) - 1),)
    first = laid_out.masked[0]
    assert vocabulary.decode(laid_out.ids[laid_out.contents[0].start : first.start]) == "Rate "
    assert vocabulary.decode(laid_out.ids[first.stop : -1]) == " it"


def test_the_tokenizer_is_not_modified():
    before = Tokenizer.from_str(tokenizer.to_str())
    Vocabulary(tokenizer, CHAT, 400)
    assert tokenizer.to_str() == before.to_str()


def test_a_copy_lays_out_as_the_original_does():
    copy = pickle.loads(pickle.dumps(vocabulary))
    assert copy.encode("Rate <|mdm_mask|>") == vocabulary.encode("Rate <|mdm_mask|>")
    assert copy.chat == vocabulary.chat
    assert copy.banned_ids == vocabulary.banned_ids


def test_added_words_behind_the_special_tokens_keep_their_ids():
    """Qwen2's tokenizer has <tool_call> and its like there, which are no special tokens."""
    tokenizer = make_tokenizer([])
    tokenizer.add_special_tokens(list(SPECIAL))
    words = [f"<extra_{number}>" for number in range(8)]
    tokenizer.add_tokens([AddedToken(word, normalized=False) for word in words])
    own = Vocabulary(tokenizer, CHAT, 500)
    for word in words:
        assert own.encode(word) == [tokenizer.token_to_id(word)]
        assert own.decode(own.encode(word)) == word
    assert own.banned_ids.isdisjoint(own.encode("a <|mdm_mask|> b <|eot_id|>" + "".join(words)))


def test_a_typed_mask_is_text_where_a_model_has_it_among_its_words():
    """As in XLM-R, whose Unigram model holds its special tokens."""
    special = ("<s>", "</s>", "<unk>", "<mask>")
    pieces = [*special, *"▁<>/amsknurte", "▁the", "mask"]
    tokenizer = Tokenizer(
        models.Unigram([(piece, -1.0 - n / 100) for n, piece in enumerate(pieces)], unk_id=2)
    )
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer.add_special_tokens(list(special))
    own = Vocabulary(tokenizer, ChatFormat(mask="<mask>", stops=("</s>",), start=("<s>",)), len(pieces))
    for typed in special:
        ids = own.encode(f"the {typed} the")
        assert own.banned_ids.isdisjoint(ids)
        assert own.decode(ids) == f"the {typed} the"


def test_a_text_behind_another_keeps_its_space():
    """SentencePiece's decoder takes the first space of a text away; others do not, or mark what goes on."""
    pieces = ["<s>", "</s>", "<unk>", "<mask>", "▁", "▁a", "▁the", "▁rat", "ing"]
    tokenizer = Tokenizer(
        models.Unigram([(piece, -1.0 - n / 100) for n, piece in enumerate(pieces)], unk_id=2)
    )
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer.add_special_tokens(pieces[:4])
    own = Vocabulary(tokenizer, ChatFormat(mask="<mask>", stops=("</s>",)), len(pieces))
    text = "a rating the"
    ids, offsets = own.encode(text), own.offsets(text)
    for first, (start, _) in enumerate(offsets[1:], 1):
        assert own.decode(ids[:first]) + own.decode(ids[first:], behind_text=True) == text
        assert own.decode(ids[first:], behind_text=True) == text[start:]
    assert own.decode(ids) == text
    mine = vocabulary.encode("Rate the text")
    assert vocabulary.decode(mine[1:], behind_text=True) == vocabulary.decode(mine[1:])


def test_a_word_that_goes_on_leaves_no_mark_where_it_has_no_beginning():
    words = ["[UNK]", "[SEP]", "[MASK]", "dull", "##ness", "##"]
    tokenizer = Tokenizer(models.WordPiece({word: n for n, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(["[SEP]", "[MASK]"])
    own = Vocabulary(tokenizer, ChatFormat(mask="[MASK]", stops=("[SEP]",)), len(words))
    assert [own.decode(ids) for ids in ([3, 4], [4], [4, 4], [4, 3], [])] == [
        "dullness", "ness", "nessness", "ness dull", ""
    ]  # fmt: skip
