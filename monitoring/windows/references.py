"""The reference that a version was judged on, found by the digest that its records carry."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from monitoring.signals.columns import Booleans, Columns, columns_of
from service.contract.bundle import REFERENCE, Bundle, read_bundle
from service.contract.errors import BundleError
from service.contract.features import FEATURE_VERSION
from service.contract.files import sha256_file
from service.contract.record import REFERENCE_SCHEMA
from service.contract.repository import versions
from service.tasks import Task
from service.tasks.of_bundle import task_of

_KEPT = 4


@dataclass(frozen=True)
class Reference:
    """A bundle with its reference rows, as a table and as columns, and what its answers are."""

    bundle: Bundle
    table: pa.Table
    columns: Columns
    task: Task


class References:
    """References by digest; the last few stay in memory."""

    def __init__(self, repo: Path) -> None:
        self._repo = repo
        self._digests: dict[Path, str] = {}
        self._loaded: OrderedDict[str, Reference] = OrderedDict()

    def find(self, model: str, digest: str) -> Reference | None:
        """The reference of a digest, or None if no version in the repository has it.

        :raises BundleError: if the version is there and its reference is damaged.
        """
        if digest in self._loaded:
            self._loaded.move_to_end(digest)
            return self._loaded[digest]
        bundle = self._bundle(model, digest)
        if bundle is None:
            return None
        self._loaded[digest] = load_reference(bundle)
        while len(self._loaded) > _KEPT:
            self._loaded.popitem(last=False)
        return self._loaded[digest]

    def _bundle(self, model: str, digest: str) -> Bundle | None:
        for version in reversed(versions(self._repo, model)):
            path = self._repo / model / version
            if path not in self._digests:
                try:
                    self._digests[path] = read_bundle(path).digest
                except BundleError:
                    continue
            if self._digests[path] == digest:
                return read_bundle(path)
        return None


def load_reference(bundle: Bundle) -> Reference:
    """Read and verify ``reference.parquet``. :raises BundleError: if it is missing, altered or of another recipe."""
    path = bundle.file(REFERENCE)
    try:
        if sha256_file(path) != bundle.manifest.files[REFERENCE].sha256:
            raise BundleError(f"{path} is not the file that the manifest names. Export again, or roll back.")
        table = pq.read_table(path, schema=REFERENCE_SCHEMA, partitioning=None)
    except (OSError, pa.ArrowException) as error:
        raise BundleError(f"{path} cannot be read: {error}. Export again, or roll back.") from error
    if bundle.manifest.reference.feature_version != FEATURE_VERSION:
        raise BundleError(
            f"{path} has features of recipe {bundle.manifest.reference.feature_version}, this Plumbline logs recipe "
            f"{FEATURE_VERSION}. Export again with this version."
        )
    if not table.num_rows:
        raise BundleError(f"{path} has no rows. Export again with a larger evaluation file.")
    task = task_of(bundle.manifest)
    columns = columns_of(table, task)
    return Reference(bundle, table, replace(columns, outcomes=_outcomes(table, task)), task)


def _outcomes(table: pa.Table, task: Task) -> Booleans | None:
    """Whether the labelled rows were answered rightly."""
    answers, targets = (table.column(name).to_pylist() for name in ("label", "target"))
    told = [(one, target) for one, target in zip(answers, targets, strict=True) if None not in (one, target)]
    return task.correct([one for one, _ in told], [target for _, target in told]) if told else None
