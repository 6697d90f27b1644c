"""Making a bundle's CPU file once more from what its manifest says."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from export.build import libraries
from export.checkpoint.load import checkpoint_digest, kept_checkpoint, read_checkpoint
from export.data.kept import rows_file
from export.errors import CheckpointError
from export.graph.onnx import load_model
from export.hardware import processor
from export.pipeline import data_arguments
from export.search.store import SearchStore
from export.search.walk import Compressor, execute_plan
from export.train.finetune import silence
from service.contract.bundle import Bundle
from service.contract.dataset import Dataset, read_dataset
from service.contract.errors import InvalidInput, Refused
from service.contract.files import sha256_file
from service.tasks.of_bundle import task_of, tokenizer_of


@dataclass(frozen=True)
class Reproduced:
    """The file that came out the same."""

    file: str
    sha256: str
    seconds: float


def reproduce(bundle: Bundle, train: Dataset | None = None, checkpoint: Path | None = None) -> Reproduced:
    """Follow the bundle's plan from its checkpoint and training rows; nothing is published.

    Without ``checkpoint`` or ``train`` those are taken that the repository keeps for the bundle.

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
    train = training_rows(bundle, train)
    silence()
    source = read_checkpoint(path, made.labels)
    compressor = Compressor(
        load_model(source), tokenizer_of(bundle), train, made.labels, task_of(made), made.source.seed
    )
    with tempfile.TemporaryDirectory() as folder:
        again = sha256_file(execute_plan(compressor, made.plan, SearchStore(Path(folder))).file)
    file = made.variants["cpu"].file
    if again != made.files[file].sha256:
        raise Refused(
            f"{file} came out as {again[:16]}…, the manifest says {made.files[file].sha256[:16]}…. "
            + _surroundings(bundle)
        )
    return Reproduced(file, again, time.monotonic() - started)


def training_rows(bundle: Bundle, given: Dataset | None) -> Dataset:
    """The rows that the bundle was made with: those given, or those that the repository keeps.

    :raises InvalidInput: if they are others, or are not kept; with the number and digest of those wanted.
    """
    made = bundle.manifest
    rows, digest = made.source.arguments.get("train_rows"), str(made.source.arguments.get("train_sha256"))
    wanted = f"{bundle.path} was made with {rows} rows of digest {digest[:16]}…"
    file = rows_file(bundle.path.parent.parent, made.name, digest)
    retrained = made.challenge is not None
    if given is None and not file.is_file():
        how = (
            f"a retrain keeps them in {file}, which is not there, and without it this version cannot be made again"
            if retrained
            else "the repository keeps no rows of an export: give the file with --train"
        )
        raise InvalidInput(f"{wanted}; {how}.")
    found = given if given is not None else read_dataset(file)
    has = data_arguments(train=found)
    if has["train_sha256"] == digest:
        return found
    source = found.origin.path if found.origin is not None else "--train"
    hint = (
        " It was retrained: leave out --train, and the rows are taken that were kept."
        if retrained and given is not None
        else ""
    )
    raise InvalidInput(
        f"{source} has other rows: {has['train_rows']} of digest {str(has['train_sha256'])[:16]}…; {wanted}, "
        f"over texts and labels in their order.{hint}"
    )


def _surroundings(bundle: Bundle) -> str:
    then, now = bundle.manifest.source.libraries, libraries()
    changed = [f"{name} {then.get(name)} then, {now[name]} now" for name in now if then.get(name) != now[name]]
    measured = {one.hardware for one in bundle.manifest.latency}
    if processor() not in measured:
        changed.append(f"the processor was {', '.join(sorted(measured))} then, and is {processor()} now")
    return f"What differs: {'; '.join(changed or ['nothing that is recorded'])}."
