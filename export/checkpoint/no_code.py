"""A checkpoint is data from a stranger: what in its files makes transformers load code is refused before it is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from export.errors import CheckpointError

# Kinds of attention and of experts that transformers brings itself; anything else names a repository with code.
_OWN = frozenset(
    ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention", "paged_attention", "grouped_mm")
)
_FILES = ("config.json", "tokenizer_config.json", "processor_config.json", "generation_config.json")


def refuse_code(config: Mapping[str, Any], source: str) -> None:
    """:raises CheckpointError: naming the key of ``config``, read from ``source``, that asks for code."""
    for key, value in _pairs(config):
        asks = (
            (key in ("auto_map", "custom_pipelines", "trust_remote_code") and bool(value))
            or (key.lstrip("_").startswith(("attn_implementation", "experts_implementation")) and _is_foreign(value))
            or (key in ("kernel_config", "use_kernels") and bool(value))
        )
        if asks:
            raise CheckpointError(
                f"{source} has {key} {_shown(value)}, which makes transformers load code that comes with a model, and "
                "Plumbline runs none. Remove the key if the model is one of transformers' own types; otherwise it "
                "cannot be used."
            )


def refuse_code_in(folder: Path) -> None:
    """As :func:`refuse_code` for every configuration file of a folder; what cannot be read is told elsewhere."""
    for name in _FILES:
        try:
            config = orjson.loads((folder / name).read_bytes())
        except (OSError, orjson.JSONDecodeError):
            continue
        if isinstance(config, dict):
            refuse_code(config, str(folder / name))


def _is_foreign(value: object) -> bool:
    if isinstance(value, Mapping):  # by part of a model
        return any(_is_foreign(one) for one in value.values())
    return isinstance(value, str) and value not in _OWN


def _pairs(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every key and value, also of what lies within: a part of a model has a configuration of its own."""
    for key, value in config.items():
        yield str(key), value
        within = value if isinstance(value, list) else [value]
        for one in within:
            if isinstance(one, Mapping):
                yield from _pairs(one)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
