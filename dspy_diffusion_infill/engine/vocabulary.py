"""Text to token ids and back, and how a model family writes a conversation.

What a user wrote is text, whatever it looks like: a literal `<|mdm_mask|>` becomes ordinary tokens. Special
tokens enter a sequence by id alone.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

from dspy_diffusion_infill.errors import CanvasError, ModelError
from dspy_diffusion_infill.prompts.canvas import Masked, Message


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatFormat:
    """The special tokens of a model family, by their strings, and where they go in a conversation."""

    mask: str
    """The absorbing state."""
    stops: tuple[str, ...]
    """Tokens that end a generated answer; the first one also pads."""
    start: tuple[str, ...] = ()
    """Opens the sequence."""
    header: tuple[str, ...] = ()
    """Before the role of a turn and, if there are two, after it; empty when roles are not written."""
    header_text: str = ""
    """Text between header and content."""
    end: tuple[str, ...] = ()
    """Closes a turn."""
    end_text: str = ""
    """Text between turns."""
    system: str | None = None
    """Content of the system turn where a conversation has none; None for no such turn."""

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """Every special token that the format needs."""
        return (self.mask, *self.stops, *self.start, *self.header, *self.end)


@dataclass(frozen=True, slots=True)
class Layout:
    """A conversation as token ids, and where its masked parts lie."""

    ids: list[int]
    masked: tuple[range, ...]
    contents: tuple[range, ...] = ()
    """Where the content of each turn lies, without header and end."""


class Vocabulary:
    """A tokenizer with a chat format: lays conversations out as token ids.

    Args:
        tokenizer: Of the checkpoint. Not modified.
        chat: The format of the checkpoint's family.
        num_ids: Rows of the checkpoint's embedding.

    Raises:
        ModelError: If a special token of the format is missing, the tokenizer has more ids than the model, or
            none that stands for text.
    """

    def __init__(self, tokenizer: Tokenizer, chat: ChatFormat, num_ids: int) -> None:
        ids = tokenizer.get_vocab(with_added_tokens=True)
        needed = dict.fromkeys(chat.special_tokens)
        if missing := [token for token in needed if token not in ids]:
            wanted = ", ".join(needed)
            raise ModelError(f"The tokenizer must hold {wanted}; it lacks {', '.join(missing)}.")
        if max(ids.values()) >= num_ids:
            raise ModelError(
                f"The tokenizer's ids must be below {num_ids}, the rows of weights; got {max(ids.values())}. "
                "Tokenizer and weights are of two different checkpoints."
            )
        self.chat = chat
        self.num_ids = num_ids
        self.mask_token_id: int = ids[chat.mask]
        self.padding_id: int = ids[chat.stops[0]]
        self.stop_ids = frozenset(ids[token] for token in chat.stops)
        special = {id_ for id_, token in tokenizer.get_added_tokens_decoder().items() if token.special}
        special |= {ids[token] for token in chat.special_tokens}
        self.banned_ids = frozenset(range(num_ids)) - (frozenset(ids.values()) - special)
        """Ids that stand for no text: special tokens, and rows of the embedding without a token."""
        if len(self.banned_ids) == num_ids:
            raise ModelError(
                f"The tokenizer must hold tokens that stand for text; it holds {len(ids)} others alone. "
                "Are the checkpoint's tokenizer files in its folder?"
            )
        self._ids = {token: ids[token] for token in chat.special_tokens}
        self._tokenizer, self._text = tokenizer, _text_only(tokenizer, special)
        self._before = self.encode("a")
        *_, (start, _) = self.offsets("a a")
        self._loses_space = start == 1 and not self._decode(self.encode("a a")[-1:]).startswith(" ")
        self._continuing: str = getattr(tokenizer.model, "continuing_subword_prefix", None) or ""

    def __reduce__(self) -> tuple[type[Vocabulary], tuple[Tokenizer, ChatFormat, int]]:
        """What it was made of: the names of special tokens are drawn anew in each process."""
        return Vocabulary, (self._tokenizer, self.chat, self.num_ids)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text; special tokens typed in it are text."""
        return self._text.encode(text, add_special_tokens=False).ids

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Character range (start, end) of each token of `text`, in order."""
        return self._text.encode(text, add_special_tokens=False).offsets

    def decode(self, ids: Sequence[int], *, behind_text: bool = False) -> str:
        """The text of ids that stand for text, leading spaces included.

        WordPiece's mark of a token that goes on with a word ("##") is no text: at the start there is no word.

        Args:
            ids: No special tokens.
            behind_text: Whether something stands before it. SentencePiece's decoders take the first space
                away, as a whole text has none.
        """
        if behind_text and self._loses_space:
            return self._decode([*self._before, *ids]).removeprefix(self._decode(self._before))
        text = self._decode(ids)
        first = self._tokenizer.id_to_token(ids[0]) if ids else None
        goes_on = first is not None and first.startswith(self._continuing)
        return text.removeprefix(self._continuing) if goes_on else text

    def _decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(list(ids), skip_special_tokens=False)

    def lay_out(self, messages: Sequence[Message], *, answer_tokens: int = 0) -> Layout:
        """Write a conversation as the model was taught to read it, masks by id.

        Contents are trimmed at both ends, as the family's own template does.

        Args:
            messages: The turns, in reading order.
            answer_tokens: If not 0, an assistant turn of that many mask tokens is opened at the end.
        """
        ids = [self._ids[token] for token in self.chat.start]
        masked: list[range] = []
        contents: list[range] = []
        for message in self._turns(messages):
            ids += self._header(message.role)
            start = len(ids)
            for part in _joined(_trimmed(message.parts)):
                if isinstance(part, Masked):
                    masked.append(range(len(ids), len(ids) + part.num_tokens))
                    ids += [self.mask_token_id] * part.num_tokens
                else:
                    ids += self.encode(part)
            contents.append(range(start, len(ids)))
            ids += [*(self._ids[token] for token in self.chat.end), *self.encode(self.chat.end_text)]
        if answer_tokens:
            ids += self._header("assistant")
            masked.append(range(len(ids), len(ids) + answer_tokens))
            ids += [self.mask_token_id] * answer_tokens
        return Layout(ids, tuple(masked), tuple(contents))

    def lay_out_text(self, parts: Sequence[str | Masked]) -> Layout:
        """Write plain text as token ids, without roles, turns or trimming, masks by id."""
        ids = [self._ids[token] for token in self.chat.start]
        masked: list[range] = []
        for part in parts:
            new = [self.mask_token_id] * part.num_tokens if isinstance(part, Masked) else self.encode(part)
            if isinstance(part, Masked):
                masked.append(range(len(ids), len(ids) + len(new)))
            ids += new
        return Layout(ids, tuple(masked))

    def _turns(self, messages: Sequence[Message]) -> Sequence[Message]:
        if self.chat.system is None or (messages and messages[0].role == "system"):
            return messages
        return [Message.text("system", self.chat.system), *messages]

    def _header(self, role: str) -> list[int]:
        """What opens a turn; tokenized apart from its content, so that it is the same before any content."""
        text = self.chat.header_text
        if not self.chat.header:
            return self.encode(text)
        before, *after = (self._ids[token] for token in self.chat.header)
        if not after:
            return [before, *self.encode(role + text)]
        return [before, *self.encode(role), *after, *self.encode(text)]


def check_length(num_tokens: int, context_length: int) -> None:
    """Refuse a canvas that the model cannot see whole.

    Raises:
        CanvasError: If it is longer than the context.
    """
    if num_tokens > context_length:
        raise CanvasError(
            f"A canvas must have at most {context_length} tokens, the model's context; got {num_tokens}. "
            "Shorten the instructions, show fewer examples, or take a model with a longer context."
        )


def _text_only(tokenizer: Tokenizer, special: set[int]) -> Tokenizer:
    """The same tokenizer without padding or truncation, in which no text is a special token.

    Special tokens are not removed, since the ids of others would change: they get names that nobody types.
    Some models (Unigram) hold them among their words. Offsets keep leading spaces.
    """
    spec = json.loads(tokenizer.to_str())
    names = {tokenizer.id_to_token(id_): f"\ufdd0{secrets.token_hex(8)}" for id_ in special}
    for token in spec["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    model, words = spec["model"], spec["model"]["vocab"]
    if isinstance(words, dict):
        model["vocab"] = {names.get(word, word): id_ for word, id_ in words.items()}
    else:
        model["vocab"] = [[names.get(word, word), score] for word, score in words]
    if (unknown := model.get("unk_token")) is not None:
        model["unk_token"] = names.get(unknown, unknown)
    spec |= {"post_processor": None, "padding": None, "truncation": None}
    return Tokenizer.from_str(json.dumps(spec))


def _trimmed(parts: Sequence[str | Masked]) -> Iterator[str | Masked]:
    for index, part in enumerate(parts):
        if isinstance(part, str):
            part = part.lstrip() if index == 0 else part
            part = part.rstrip() if index == len(parts) - 1 else part
        yield part


def _joined(parts: Iterable[str | Masked]) -> Iterator[str | Masked]:
    """Neighbouring texts become one, so that they are tokenized as they read."""
    text = ""
    for part in parts:
        if isinstance(part, str):
            text += part
            continue
        if text:
            yield text
        text = ""
        yield part
    if text:
        yield text
