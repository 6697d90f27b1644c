"""Making a bundle's CPU file once more from what its manifest says."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from export.build import libraries
from export.checkpoint import checkpoint_digest, kept_checkpoint, read_checkpoint
from export.errors import CheckpointError
from export.finetune import silence
from export.hardware import processor
from export.onnx import load_model
from export.pipeline import data_arguments
from export.search.store import Store
from export.search.walk import Subject, follow
from service.contract.bundle import TOKENIZER, Bundle
from service.contract.dataset import Dataset
from service.contract.errors import InvalidInput, Refused
from service.contract.files import sha256_file
from service.tokenizer import TextTokenizer


@dataclass(frozen=True)
class Reproduced:
    """The file that came out the same."""

    file: str
    sha256: str
    seconds: float


def reproduce(bundle: Bundle, train: Dataset, checkpoint: Path | None = None) -> Reproduced:
    """Follow the bundle's plan from its checkpoint and training rows; nothing is published.

    Without ``checkpoint`` the one is taken that the repository keeps for the bundle.

    :raises InvalidInput: if the bundle has no plan, or the checkpoint or the rows are not those it was made from.
    :raises Refused: if another file comes out, with what differs in the surroundings.
    """
    started = time.monotonic()
    made = bundle.manifest
    if made.plan is None:
        raise InvalidInput(f"{bundle.path} has no CPU variant with a plan, so there is nothing to do again.")
    path = checkpoint or kept_checkpoint(bundle.path.parent.parent, made.name, made.source.checkpoint_sha256)
    if not path.is_dir():
        raise CheckpointError(f"{path} is not there. Give the checkpoint with --checkpoint.")
    if (digest := checkpoint_digest(path)) != made.source.checkpoint_sha256:
        raise InvalidInput(
            f"{path} is not the checkpoint of {bundle.path}: its digest is {digest[:16]}…, the manifest says "
            f"{made.source.checkpoint_sha256[:16]}…."
        )
    given, wanted = data_arguments(train=train)["train_sha256"], made.source.arguments.get("train_sha256")
    if given != wanted:
        raise InvalidInput(f"the training rows are not those that {bundle.path} was made with ({str(given)[:16]}…).")
    silence()
    source = read_checkpoint(path)
    tokenizer = TextTokenizer(bundle.file(TOKENIZER), made.max_length, made.pad_id)
    subject = Subject(load_model(source), tokenizer, train, made.labels, made.task, made.source.seed)
    with tempfile.TemporaryDirectory() as folder:
        again = sha256_file(follow(subject, made.plan, Store(Path(folder))).file)
    file = made.variants["cpu"].file
    if again != made.files[file].sha256:
        raise Refused(
            f"{file} came out as {again[:16]}…, the manifest says {made.files[file].sha256[:16]}…. "
            + _surroundings(bundle)
        )
    return Reproduced(file, again, time.monotonic() - started)


def _surroundings(bundle: Bundle) -> str:
    then, now = bundle.manifest.source.libraries, libraries()
    changed = [f"{name} {then.get(name)} then, {now[name]} now" for name in now if then.get(name) != now[name]]
    measured = {one.hardware for one in bundle.manifest.latency}
    if processor() not in measured:
        changed.append(f"the processor was {', '.join(sorted(measured))} then, and is {processor()} now")
    return f"What differs: {'; '.join(changed or ['nothing that is recorded'])}."
