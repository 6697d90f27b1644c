"""How a checkpoint reads texts: its own tokenizer, how many tokens it takes, and how rows are padded."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import orjson
from tokenizers import Tokenizer
from torch import nn
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from export.errors import CheckpointError
from service.contract.errors import InvalidInput
from service.contract.inputs import Input, joined, parts, split
from service.engine import length_grid
from service.tasks.tokenizer import Places, TextTokenizer, Tokens, word_numbers

_PLAIN = ("PreTrainedTokenizerFast", "TokenizersBackend")  # tokenizer.json as it is, in the words of two versions
USUAL = 512  # tokens; models that take more are served with more only if a row or the user asks for it

_UNLIMITED = 10**6  # what tokenizers say that know no limit is far beyond
_TABLES = ("position_embeddings", "position_embedding", "embed_positions", "wpe")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CheckpointTokenizer:
    """A checkpoint's tokenizer as transformers loads it, and how texts become the rows of a batch.

    ``max_length`` is in tokens, special tokens included. A text without any token is read as one ``pad_id``.
    """

    tokenizer: PreTrainedTokenizerFast
    max_length: int
    pad_id: int

    def encode(self, texts: Sequence[Input]) -> dict[str, list[list[int]]]:
        """The model's inputs by name, a row for each text: transformers' own call, truncated and not padded."""
        first, second = map(list, zip(*map(split, texts), strict=True)) if texts else ([], [])
        seconds = None if None in second else second
        found = self.tokenizer(first, seconds, truncation=True, max_length=self.max_length)
        rows: dict[str, list[list[int]]] = {name: list(values) for name, values in found.items()}
        one = {"input_ids": self.pad_id, "attention_mask": 1}
        for row, ids in enumerate(rows["input_ids"]):
            if not ids:
                for name, values in rows.items():
                    values[row] = [one.get(name, 0)]
        return rows

    def placed(self, texts: Sequence[str]) -> list[Tokens]:
        """The same rows with where their tokens are, by transformers' own account."""
        if not texts:
            return []
        encodings = self.tokenizer(list(texts), truncation=True, max_length=self.max_length).encodings
        backend, unknown = self.tokenizer.backend_tokenizer, self.tokenizer.unk_token_id
        rows: list[Tokens] = []
        for text, read in zip(texts, encodings, strict=True):
            places = Places(read.offsets, word_numbers(backend, unknown, text, read))
            if read.ids:
                rows.append(Tokens(read.ids, read.type_ids, truncated=False, unk_share=0.0, places=places))
            else:
                rows.append(Tokens([self.pad_id], [0], truncated=False, unk_share=0.0, places=Places([(0, 0)], [-1])))
        return rows

    def served(self, path: Path, *, placed: bool = False) -> TextTokenizer:
        """What serves texts, of a file that was written by :meth:`write`."""
        return TextTokenizer(path, self.max_length, self.pad_id, placed=placed)

    def write(self, path: Path) -> None:
        """Write it as ``tokenizer.json``, with what ``tokenizer_config.json`` says and the side of truncation in it."""
        backend = Tokenizer.from_str(self.tokenizer.backend_tokenizer.to_str())
        backend.no_padding()
        backend.enable_truncation(self.max_length, direction=self.tokenizer.truncation_side)
        backend.save(str(path))


def read_texts(
    where: Path, model: PreTrainedModel, texts: Iterable[Input], wanted: int | None = None
) -> CheckpointTokenizer:
    """How the checkpoint in ``where``, whose model is loaded, reads texts such as these.

    :param wanted: the length to read, in tokens. Without it: what the checkpoint allows, if that is at most 512;
        otherwise 512, or as much as the longest of ``texts`` needs.
    :raises CheckpointError: if there is no fast tokenizer, or the token for padding is none of the model's.
    :raises InvalidInput: if ``wanted`` is more than the checkpoint allows.
    """
    tokenizer = load_tokenizer(str(where), local=True)
    limit = length_limit(model, tokenizer)
    if limit is not None and limit < 2:
        raise CheckpointError(f"{where} takes {limit} tokens at most. Set model_max_length in tokenizer_config.json.")
    if wanted is not None and limit is not None and wanted > limit:
        raise InvalidInput(f"--max-length {wanted} is beyond the {limit} tokens that {where} takes. Give a lower one.")
    return CheckpointTokenizer(
        tokenizer, wanted or _length(tokenizer, limit, texts), pad_token(where, model, tokenizer)
    )


def load_tokenizer(where: str, *, local: bool) -> PreTrainedTokenizerFast:
    """A folder's or a hub name's tokenizer, made from its vocabulary where there is no ``tokenizer.json``.

    :raises CheckpointError: if it cannot be loaded, or is not a fast one.
    """
    try:
        tokenizer = _class_of(where).from_pretrained(where, local_files_only=local, use_fast=True)
    except Exception as error:  # transformers raises many types without a common base
        first = str(error).strip().split("\n")[0]
        mend = "Save it there with a fast tokenizer (tokenizer.json)." if local else "Check the name and the network."
        raise CheckpointError(f"the tokenizer of {where} cannot be loaded: {first} {mend}") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise CheckpointError(
            f"the tokenizer of {where} is not a fast one, and only tokenizer.json can be served. Choose another base, "
            "or save it with a fast tokenizer."
        )
    if len(tokenizer) <= len(tokenizer.all_special_ids):  # what transformers makes of a folder without any of its files
        raise CheckpointError(
            f"the tokenizer of {where} has no vocabulary: every word would be unknown. Save it there, tokenizer.json "
            "included (tokenizer.save_pretrained)."
        )
    return tokenizer


def _class_of(where: str) -> Any:
    """What loads the tokenizer: the class that its file names where that is the plain one.

    For some types of models AutoTokenizer takes another class all the same, which makes other tokens of other files.
    """
    try:
        named = orjson.loads((Path(where) / "tokenizer_config.json").read_bytes()).get("tokenizer_class")
    except (OSError, orjson.JSONDecodeError, AttributeError):
        return AutoTokenizer
    return PreTrainedTokenizerFast if named in _PLAIN else AutoTokenizer


def length_limit(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> int | None:
    """The most tokens that tokenizer, configuration and position embeddings allow; None if none sets a limit."""
    limits = [tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None), *_positions(model)]
    known = [int(limit) for limit in limits if isinstance(limit, int | float) and 0 < limit < _UNLIMITED]
    return min(known, default=None)


def _positions(model: PreTrainedModel) -> Iterator[int]:
    """Usable rows of each table of positions. The first ones may be reserved: up to the padding's, or by an offset."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and name.rpartition(".")[2] in _TABLES:
            reserved = getattr(module, "offset", 0) if module.padding_idx is None else module.padding_idx + 1
            yield module.num_embeddings - int(reserved)


def pad_token(where: str | Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> int:
    """The token that fills up shorter rows: the model's, which looks for it; else the tokenizer's; else 0.

    :raises CheckpointError: if the model has no such token.
    """
    named, own = model.config.pad_token_id, tokenizer.pad_token_id
    if named is None:
        return int(own or 0)
    if not 0 <= named < vocabulary_rows(model):
        raise CheckpointError(
            f"{where}: pad_token_id in config.json is {named}, which is none of the model's tokens. Name the token "
            f"that it was trained with{'' if own is None else f'; the tokenizer says {own} ({tokenizer.pad_token!r})'}."
        )
    if own is not None and own != named:
        logger.warning(
            "%s: padding is token %d by config.json and %d (%r) by the tokenizer; the model looks for the former, so "
            "that is used",
            where,
            named,
            own,
            tokenizer.pad_token,
        )
    return int(named)


def vocabulary_rows(model: PreTrainedModel) -> int:
    """How many tokens the model has embeddings for."""
    return cast(nn.Embedding, model.get_input_embeddings()).num_embeddings


def _length(tokenizer: PreTrainedTokenizerFast, limit: int | None, texts: Iterable[Input]) -> int:
    if limit is not None and limit <= USUAL:
        return limit
    # The others are shorter in tokens, too.
    long = [parts(given) for given in texts if len(joined(given).encode()) > USUAL // 4]
    longest = max((len(tokenizer(*given)["input_ids"]) for given in long), default=0)
    grid = length_grid(limit or max(USUAL, 2 * longest))
    length = USUAL if longest <= USUAL else next((step for step in grid if step >= longest), grid[-1])
    allowed = "any number of" if limit is None else f"{limit}"
    logger.info(
        "texts are read up to %d tokens: the checkpoint takes %s, the longest row has %s; --max-length sets another",
        length,
        allowed,
        longest or f"fewer than {USUAL}",
    )
    return length
