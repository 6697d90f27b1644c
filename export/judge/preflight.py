"""Before a search: what will be served reads texts as the checkpoint's own tokenizer does, and answers as it does.

Everything here takes seconds, on rows that the export is given. What it finds is the checkpoint's, so no graph that is
made from it later could be right.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from transformers import PreTrainedModel

from export.checkpoint.load import Checkpoint
from export.checkpoint.tokenizer import CheckpointTokenizer, read_texts, vocabulary_rows
from export.errors import CheckpointError, first_line
from export.graph.conversion import check_conversion
from export.graph.parity import ATOL, RTOL
from export.inference.golden import odd_inputs
from export.inference.predict import Floats, by_row, own_logits, torch_inputs
from service.contract.bundle import TOKENIZER
from service.contract.dataset import Dataset
from service.contract.inputs import Input, TextPair, characters, parts
from service.tasks.tokenizer import TextTokenizer, Tokens

_ROWS = 500  # whose tokens are compared
_ANSWERS = 64  # of them, whose answers are, as far as they have at most
_TOKENS = 4_096
_BATCH = 8
_SPECIAL = 50  # special tokens that are looked for in the middle of a text
_SHOWN = 8

Item = TypeVar("Item")


def preflight(
    model: PreTrainedModel,
    checkpoint: Checkpoint,
    train: Dataset,
    evaluation: Dataset,
    *,
    max_length: int | None = None,
    seed: int = 0,
) -> CheckpointTokenizer:
    """Check that ``checkpoint`` can be served as it was trained; returns how it reads texts.

    :param model: the checkpoint's, loaded.
    :param max_length: as ``wanted`` of :func:`export.checkpoint.tokenizer.read_texts`.
    :raises CheckpointError: if the served tokenizer gives other tokens than transformers, the tokenizer has tokens
        that the model does not know, answers change with padding, the model fails on a text of full length, or it
        cannot be converted.
    :raises InvalidInput: if ``max_length`` is more than the checkpoint allows.
    """
    hf_tokenizer = read_texts(checkpoint.path, model, chain(train.texts, evaluation.texts), max_length)
    _check_vocabulary(checkpoint, model, hf_tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        hf_tokenizer.write(Path(folder) / TOKENIZER)
        served = hf_tokenizer.served(Path(folder) / TOKENIZER)
    texts = _spread(sorted(set(evaluation.texts), key=characters), _ROWS)
    odd = [*odd_inputs(texts[0]), *_with_special_tokens(hf_tokenizer, texts[0])]
    _check_tokens(checkpoint, hf_tokenizer, served, [*texts, *odd])
    by_length = sorted(zip(served(texts), texts, strict=True), key=lambda pair: len(pair[0]))
    _check_full_length(checkpoint, model, hf_tokenizer, by_length[-1][0])
    mean = sum(len(tokens) for tokens, _ in by_length) / len(by_length)
    compared = _spread(by_length, max(_BATCH, min(_ANSWERS, int(_TOKENS / mean))))
    _check_answers(checkpoint, model, hf_tokenizer, served, [served.cut(text) for _, text in compared])
    check_conversion(model, checkpoint, _spread([tokens for tokens, _ in compared], _BATCH), hf_tokenizer, seed=seed)
    return hf_tokenizer


def _check_vocabulary(checkpoint: Checkpoint, model: PreTrainedModel, hf_tokenizer: CheckpointTokenizer) -> None:
    rows = vocabulary_rows(model)
    beyond = {number: token for token, number in hf_tokenizer.tokenizer.get_vocab().items() if number >= rows}
    if beyond:
        number = max(beyond)
        raise CheckpointError(
            f"{checkpoint.path}: the tokenizer has {len(beyond)} tokens that the model has no embedding for: "
            f"{beyond[number]!r} is token {number}, and the table has {rows} rows. Call "
            "model.resize_token_embeddings(len(tokenizer)) before training, or take those tokens out of the tokenizer."
        )


def _check_tokens(
    checkpoint: Checkpoint, hf_tokenizer: CheckpointTokenizer, served: TextTokenizer, texts: Sequence[Input]
) -> None:
    """Ids, types and truncation, text by text."""
    for text in texts:
        cut = served.cut(text)
        try:
            own = hf_tokenizer.encode([cut])
            found = served([text])[0]
        except Exception as error:  # tokenizers raises plain Exception
            raise CheckpointError(
                f"{checkpoint.path}: the tokenizer fails on {_short(text)}: {error}. Name an unk_token that is in its "
                "vocabulary."
            ) from error
        for what, mine, theirs in (
            ("tokens", found.ids, own["input_ids"][0]),
            ("token types", found.type_ids, own.get("token_type_ids", [found.type_ids])[0]),
        ):
            if mine != theirs:
                raise CheckpointError(
                    f"{checkpoint.path}: what would be served reads {_short(text)} as other {what} than transformers "
                    f"does: {_from_difference(mine, theirs)}. tokenizer.json cannot hold what makes the difference (a "
                    "setting in tokenizer_config.json, as split_special_tokens, or a tokenizer class of its own); take "
                    "that out, or train with a tokenizer that does without."
                )


def _check_full_length(
    checkpoint: Checkpoint, model: PreTrainedModel, hf_tokenizer: CheckpointTokenizer, longest: Tokens
) -> None:
    """Run the model once on as many tokens as it will be given at most."""
    times = -(-hf_tokenizer.max_length // len(longest))
    ids, types = ((values * times)[: hf_tokenizer.max_length] for values in (longest.ids, longest.type_ids))
    try:
        with torch.no_grad():
            model(**torch_inputs(model, [Tokens(ids, types, truncated=True, unk_share=0.0)]))
    except Exception as error:  # a model may raise anything
        raise CheckpointError(
            f"{checkpoint.path} fails on a text of {hf_tokenizer.max_length} tokens, which its tokenizer and "
            f"configuration allow: {first_line(error)}. Give --max-length with the length that it was trained for."
        ) from error


def _check_answers(
    checkpoint: Checkpoint,
    model: PreTrainedModel,
    hf_tokenizer: CheckpointTokenizer,
    served: TextTokenizer,
    texts: Sequence[Input],
) -> None:
    """The checkpoint alone with each text, by transformers' own call, against batches as a server makes them.

    :param texts: from the shortest to the longest.
    """
    try:
        expected = [own_logits(model, hf_tokenizer, [text]) for text in texts]
    except Exception as error:  # as above
        raise CheckpointError(f"{checkpoint.path} fails on rows of the eval data: {first_line(error)}.") from error
    if not all(np.isfinite(one).all() for one in expected):
        raise CheckpointError(f"{checkpoint.path} answers NaN or infinity; its weights are damaged. Train it again.")
    try:
        given = _mixed_logits(model, served(texts))
    except Exception as error:  # as above
        raise CheckpointError(
            f"{checkpoint.path}, of type {model.config.model_type!r}, cannot answer several texts at once, as a server "
            f"asks it to: {first_line(error)} {_mend(model, hf_tokenizer)}"
        ) from error
    pairs = list(enumerate(zip(given, expected, strict=True)))
    row = next((row for row, (one, other) in pairs if not np.allclose(one, other, atol=ATOL, rtol=RTOL)), None)
    if row is None:
        return
    alone = [_mixed_logits(model, served([text]))[0] for text in texts]
    if all(np.allclose(one, other, atol=ATOL, rtol=RTOL) for one, other in zip(alone, expected, strict=True)):
        what = "in batches: its answer to a text changes when the text is padded to the length of another"
        how = f"beside longer texts, filled up with token {hf_tokenizer.pad_id}. {_mend(model, hf_tokenizer)}"
    else:
        what = "as it was trained: its answers change with the inputs that are served"
        how = (
            "as it would be served. Look at model_input_names in tokenizer_config.json: token_type_ids must be there "
            "if the model was trained with them, and only then."
        )
    raise CheckpointError(
        f"{checkpoint.path}, of type {model.config.model_type!r}, cannot be served {what}. {_short(texts[row])} gets "
        f"{_numbers(expected[row])} alone and {_numbers(given[row])} {how}"
    )


def _mixed_logits(model: PreTrainedModel, tokens: Sequence[Tokens]) -> list[Floats]:
    """The logits of each text in batches of short and long rows; ``tokens`` are from the shortest to the longest."""
    found: dict[int, Floats] = {}
    batches = -(-len(tokens) // _BATCH)
    with torch.no_grad():
        for first in range(batches):
            inputs = torch_inputs(model, tokens[first::batches])
            rows = range(first, len(tokens), batches)
            found |= zip(rows, by_row(model(**inputs).logits, inputs["attention_mask"]), strict=True)
    return [found[row] for row in range(len(tokens))]


def _mend(model: PreTrainedModel, hf_tokenizer: CheckpointTokenizer) -> str:
    kind, named, own = model.config.model_type, model.config.pad_token_id, hf_tokenizer.tokenizer.pad_token_id
    if named is not None:
        return (
            f"Either pad_token_id in config.json, {named}, is not what it was trained with, or models of type {kind!r} "
            "read padding as text and cannot be served."
        )
    known = "" if own is None else f"; the tokenizer's is {own} ({hf_tokenizer.tokenizer.pad_token!r})"
    return f"Name the padding token that it was trained with: set pad_token_id in config.json{known}."


def _with_special_tokens(hf_tokenizer: CheckpointTokenizer, like: Input) -> list[Input]:
    found = [f"a {token} b" for token in list(hf_tokenizer.tokenizer.added_tokens_encoder)[:_SPECIAL]]
    return [TextPair(text, text) for text in found] if isinstance(like, TextPair) else list(found)


def _spread(items: Sequence[Item], most: int) -> list[Item]:
    """At most so many of the items, evenly over their order, the first and the last among them."""
    return [items[int(place)] for place in np.linspace(0, len(items) - 1, min(most, len(items)))]


def _from_difference(mine: Sequence[int], theirs: Sequence[int]) -> str:
    """Both from a little before the first difference."""
    first = next((place for place, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b), 0)
    start = max(0, first - 2)
    return " and ".join(f"{list(one[start : start + _SHOWN])}" for one in (mine, theirs)) + f", from token {start}"


def _numbers(logits: Floats) -> str:
    return "[" + ", ".join(f"{value:.4g}" for value in logits.ravel()[:_SHOWN]) + "]"


def _short(given: Input) -> str:
    return " and ".join(repr(text if len(text) <= 60 else text[:57] + "…") for text in parts(given))
