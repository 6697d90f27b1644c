"""Texts to token ids with a raw ``tokenizers.Tokenizer``; padding is left to the engine.

Thread-safe: truncation is set once, so no call changes the tokenizer ("Already borrowed", tokenizers#537).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Encoding, Tokenizer

from service.contract.errors import BundleError
from service.contract.inputs import Input, TextPair, parts

CHARACTERS_PER_TOKEN = 64


@dataclass(frozen=True, slots=True)
class Places:
    """Where each token is: its characters from and to, and the number of its word, -1 for a special token."""

    spans: list[tuple[int, int]]
    words: list[int]


@dataclass(frozen=True, slots=True)
class Tokens:
    """One text, or pair, as the model sees it. ``unk_share`` is the share of unknown tokens among the ordinary ones.

    ``places`` says where each token is in the text, if that was asked for.
    """

    ids: list[int]
    type_ids: list[int]
    truncated: bool
    unk_share: float
    places: Places | None = None

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Truncation:
    """How the texts of a request are to be read, where that is not as the model was trained.

    :param truncate: whether a text that is too long may be cut; None is yes.
    :param from_left: whether its beginning is cut off instead of its end; None is what the tokenizer's file says.
    """

    truncate: bool | None = None
    from_left: bool | None = None


AS_TRAINED = Truncation()


def word_numbers(tokenizer: Tokenizer, unknown_id: int | None, text: str, encoding: Encoding) -> list[int]:
    """Which word of its text each token belongs to, -1 for special tokens.

    As transformers' pipeline for token classification has it: a token goes on with a word if its name is longer or
    shorter than its characters, as ``##ing`` is; of a tokenizer without such names, if no space is before it.
    """
    named = getattr(tokenizer.model, "continuing_subword_prefix", None)
    words, word = [], -1
    columns = zip(encoding.ids, encoding.tokens, encoding.offsets, encoding.special_tokens_mask, strict=True)
    for number, token, (start, end), special in columns:
        if special:
            words.append(-1)
            continue
        goes_on = len(token) != end - start if named else start > 0 and " " not in text[start - 1 : start + 1]
        if word < 0 or number == unknown_id or not goes_on:
            word += 1
        words.append(word)
    return words


class TextTokenizer:
    """Tokenizes texts, and pairs of texts, to at most ``max_length`` tokens, special tokens included.

    Of a pair that is too long the longer text is cut first, as transformers does.
    Whether the end or the beginning of a longer text is cut off is what the file says (``truncation``). A text without
    any token, such as an empty one where no special tokens are added, is read as one ``pad_id``.

    :param placed: whether to tell where each token is in its text, which takes a little longer.
    """

    def __init__(self, path: Path, max_length: int, pad_id: int = 0, *, placed: bool = False) -> None:
        try:
            self._tokenizer: Tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises plain Exception
            raise BundleError(f"{path} is not a tokenizer: {error}. Export again.") from error
        # What lies beyond matters only in texts of very long words, and a megabyte must not hold up its neighbours.
        self.max_characters = max_length * CHARACTERS_PER_TOKEN
        self.pad_id = pad_id
        self._from_left = (self._tokenizer.truncation or {}).get("direction") == "left"
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_length, direction="left" if self._from_left else "right")
        self._max_length = max_length
        self._mirrored: Tokenizer | None = None
        self._placed = placed
        model = self._tokenizer.model
        unknown = getattr(model, "unk_token", None)
        self._unknown_id = self._tokenizer.token_to_id(unknown) if unknown else None

    def __call__(self, texts: Sequence[Input], from_left: bool | None = None) -> list[Tokens]:
        """Tokenize a batch of valid Unicode texts, or pairs, without offsets unless they are wanted; releases the GIL.

        :param from_left: as in :class:`Truncation`.
        """
        found = []
        kept = [parts(self.cut(text, from_left)) for text in texts]
        given = [one if len(one) > 1 else one[0] for one in kept]
        tokenizer, left = self._cutting(from_left), self._from_left if from_left is None else from_left
        encoded = tokenizer.encode_batch(given) if self._placed else tokenizer.encode_batch_fast(given)
        for text, read, encoding in zip(texts, given, encoded, strict=True):
            ids = encoding.ids
            if not ids:
                nowhere = Places([(0, 0)], [-1]) if self._placed else None
                found.append(Tokens([self.pad_id], [0], truncated=False, unk_share=0.0, places=nowhere))
                continue
            ordinary = len(ids) - sum(encoding.special_tokens_mask)
            unknown = ids.count(self._unknown_id) if self._unknown_id is not None else 0
            truncated = bool(encoding.overflowing) or any(len(one) > self.max_characters for one in parts(text))
            share = unknown / ordinary if ordinary else 0.0
            places = self._places(text, read, encoding, from_left=left)
            found.append(Tokens(ids, encoding.type_ids, truncated, share, places))
        return found

    def _places(self, text: Input, read: object, encoding: Encoding, *, from_left: bool) -> Places | None:
        """In the whole text, of which the tokenizer may have ``read`` the beginning or the end only."""
        if not self._placed or not isinstance(text, str) or not isinstance(read, str):
            return None
        words = word_numbers(self._tokenizer, self._unknown_id, read, encoding)
        before = len(text) - len(read) if from_left else 0
        return Places([(start + before, end + before) for start, end in encoding.offsets], words)

    def cut(self, given: Input, from_left: bool | None = None) -> Input:
        """The characters that are read; all, except of a text far beyond ``max_length``."""
        if isinstance(given, TextPair):
            return TextPair(*(self._cut(one, from_left) for one in parts(given)))
        return self._cut(given, from_left)

    def pieces(self, texts: Sequence[str], special: bool) -> list[Encoding]:
        """What the tokens of each text are, with their places in it; cut as the model reads them.

        :param special: whether the model's special tokens are added.
        """
        found: list[Encoding] = self._tokenizer.encode_batch(
            [self._cut(text) for text in texts], add_special_tokens=special
        )
        return found

    def decode(self, rows: Sequence[Sequence[int]], skip_special: bool) -> list[str]:
        """The text of each row of token ids; an id that is no token has none."""
        found: list[str] = self._tokenizer.decode_batch(rows, skip_special_tokens=skip_special)
        return found

    def _cut(self, text: str, from_left: bool | None = None) -> str:
        left = self._from_left if from_left is None else from_left
        return text[-self.max_characters :] if left else text[: self.max_characters]

    def _cutting(self, from_left: bool | None) -> Tokenizer:
        """The tokenizer that cuts texts at this end; a second one, since truncation is set once."""
        if from_left is None or from_left == self._from_left:
            return self._tokenizer
        if self._mirrored is None:
            mirrored: Tokenizer = Tokenizer.from_str(self._tokenizer.to_str())
            mirrored.enable_truncation(self._max_length, direction="left" if from_left else "right")
            self._mirrored = mirrored
        return self._mirrored
