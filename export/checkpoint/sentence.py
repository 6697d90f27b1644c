"""What a folder of sentence-transformers says: how tokens become one vector, and how long texts may be.

``modules.json`` lists the steps: Transformer, Pooling, and maybe Normalize. They are where sentence-transformers writes
them, the Transformer beside the list: files elsewhere would be none of the checkpoint's.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from export.errors import CheckpointError

logger = logging.getLogger(__name__)

MODULES = "modules.json"
_PLACES = {"Transformer": "", "Pooling": "1_Pooling"}
FILES = (MODULES, f"{_PLACES['Pooling']}/config.json", "sentence_bert_config.json", "config_sentence_transformers.json")
_POOLINGS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls", "pooling_mode_max_tokens": "max"}
_STEPS = ("Transformer", "Pooling", "Normalize")


@dataclass(frozen=True)
class SentenceModel:
    """``pooling`` is mean, cls or max; ``max_length`` in tokens, None where nothing says so."""

    pooling: str
    normalized: bool
    max_length: int | None


def sentence_model(path: Path) -> SentenceModel | None:
    """What the folder says; None if it is not one of sentence-transformers.

    :raises CheckpointError: if it has steps that are not served, or a file is damaged.
    """
    if not (path / MODULES).is_file():
        return None
    modules = _read(path / MODULES)
    if not isinstance(modules, list) or not all(isinstance(one, dict) for one in modules):
        raise CheckpointError(f"{path / MODULES} is not a list of steps.")
    steps = [str(one.get("type", "")).rpartition(".")[2] for one in modules]
    other = [step for step in steps if step not in _STEPS]
    if other or steps[:2] != ["Transformer", "Pooling"]:
        raise CheckpointError(
            f"{path / MODULES} has the steps {', '.join(steps)}; served are a Transformer, its Pooling, and Normalize. "
            "Save the model without the others."
        )
    for step, one in zip(steps[:2], modules, strict=False):
        if one.get("path", "") != _PLACES[step]:
            raise CheckpointError(
                f"{path / MODULES} has its {step} in {str(one.get('path'))[:80]!r}, and it is looked for in "
                f"{_PLACES[step] or 'the folder itself'!r}. Save the model once more with sentence-transformers."
            )
    pooling = _pooling(path / FILES[1])
    told = _read(path / FILES[2]) if (path / FILES[2]).is_file() else {}
    told = told if isinstance(told, dict) else {}
    if told.get("do_lower_case") and not _lowers(path):
        raise CheckpointError(
            f"{path / FILES[2]} asks for texts in lower case, and its tokenizer does not make them so. Set "
            "do_lower_case in tokenizer_config.json, or false here if it was trained without."
        )
    length = told.get("max_seq_length")
    prompts = _read(path / FILES[3]) if (path / FILES[3]).is_file() else {}
    if isinstance(prompts, dict) and prompts.get("default_prompt_name"):
        logger.warning(
            "%s has the default prompt %r, which is not added: send it with the texts",
            path,
            prompts["default_prompt_name"],
        )
    return SentenceModel(pooling, "Normalize" in steps, length if isinstance(length, int) and length > 1 else None)


def _lowers(path: Path) -> bool:
    """Whether the tokenizer makes texts lower case itself."""
    file = path / "tokenizer_config.json"
    told = _read(file) if file.is_file() else {}
    return isinstance(told, dict) and told.get("do_lower_case") is True


def _pooling(path: Path) -> str:
    found = _read(path)
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} is not a JSON object.")
    modes = [found["pooling_mode"]] if isinstance(found.get("pooling_mode"), str) else []
    named = (name for name, on in found.items() if name.startswith("pooling_mode_") and on is True)
    modes += [_POOLINGS.get(name, name) for name in named]
    if len(modes) != 1 or modes[0] not in _POOLINGS.values():
        raise CheckpointError(
            f"{path} pools by {' and '.join(map(str, modes)) or 'nothing'}; served is one of mean, cls and max."
        )
    return str(modes[0])


def _read(path: Path) -> Any:
    try:
        return orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}). Copy the whole folder once more.") from error
