"""The model repository: ``MODELS/<name>/<version>/`` and ``serving.json``, which says what is live.

Versions are 1, 2, 3 …; a version is written to a hidden folder beside its final place, fsynced and renamed, so a
reader sees a whole bundle or none, and two writers of one name get different versions.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.contract.bundle import MANIFEST, Bundle, Manifest, read_bundle
from service.contract.errors import BundleError, InvalidInput
from service.contract.files import fsync_path, held, write_atomic
from service.contract.user import this_user

SERVING = "serving.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_VERSION = re.compile(r"^[1-9][0-9]*$")


class Canary(BaseModel):
    """A version that answers a share of the requests."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str = Field(pattern=_VERSION.pattern)
    weight: float = Field(gt=0, le=1, description="share of the requests")


class Serving(BaseModel):
    """The content of ``serving.json``. A canary or shadow that is also the live version is none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    live: str = Field(pattern=_VERSION.pattern)
    previous: str | None = Field(default=None, pattern=_VERSION.pattern)
    canary: Canary | None = None
    shadow: str | None = Field(default=None, pattern=_VERSION.pattern, description="sees copies of the traffic")

    def with_live(self, version: str) -> Serving:
        """The same with another live version; a candidate that becomes live is a candidate no more."""
        if version == self.live:
            return self
        canary = self.canary if self.canary is not None and self.canary.version != version else None
        shadow = self.shadow if self.shadow != version else None
        return Serving(live=version, previous=self.live, canary=canary, shadow=shadow)


def check_name(name: str) -> str:
    """Return ``name`` if it can be a model's folder. :raises InvalidInput: otherwise."""
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"model name {name!r} is not allowed: 1 to 63 of letters, digits, '.', '_' and '-', "
            "starting with a letter or digit."
        )
    return name


def model_names(root: Path) -> list[str]:
    """Names of the models that have at least one version."""
    if not root.is_dir():
        return []
    return sorted(
        folder.name for folder in root.iterdir() if _NAME.fullmatch(folder.name) and versions(root, folder.name)
    )


def versions(root: Path, name: str) -> list[str]:
    """The published versions of a model, oldest first."""
    folder = root / check_name(name)
    if not folder.is_dir():
        return []
    found = [entry.name for entry in folder.iterdir() if _VERSION.fullmatch(entry.name) and entry.is_dir()]
    return sorted(found, key=int)


def live_names(root: Path) -> list[str]:
    """Names of the models of which a version is live. :raises BundleError: if there is none."""
    try:
        names = model_names(root)
    except PermissionError as error:
        raise BundleError(
            f"{error.filename} cannot be read: {error.strerror}. Let {this_user()} read the repository."
        ) from error
    if not names:
        what = "holds no model" if root.is_dir() else "does not exist"
        raise BundleError(
            f"{root} {what}. Export one with `plumbline export --repo {root}`, or mount the repository there."
        )
    live = [name for name in names if (root / name / SERVING).exists()]
    if not live:
        raise BundleError(
            f"{root} holds versions of {', '.join(names)}, and none is live. Make one live with "
            f"`plumbline rollout --repo {root} --name {names[0]} --live {versions(root, names[0])[-1]}`."
        )
    return live


def first_model(root: Path) -> str:
    """The live model that was published first: with others beside it, it stays the same.

    :raises BundleError: as :func:`live_names`.
    """

    def published(name: str) -> tuple[bool, float, str]:
        try:
            manifest = read_bundle(root / name / versions(root, name)[0]).manifest
        except BundleError:
            return True, 0.0, name  # after all that can be read
        return False, manifest.created.timestamp(), name

    return min(live_names(root), key=published)


def read_serving(root: Path, name: str) -> Serving:
    """What is live. :raises BundleError: if nothing was published under this name, or the file is damaged."""
    path = root / check_name(name) / SERVING
    try:
        return Serving.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise BundleError(f"no live model {name!r} in {root}: {path} does not exist. Export one first.") from error
    except (OSError, ValidationError) as error:
        raise BundleError(f'{path} cannot be read: {error}. It should look like {{"live": "1"}}.') from error


def live_bundle(root: Path, name: str) -> Bundle:
    """The live bundle's manifest, files unverified. :raises BundleError: as :func:`read_serving`."""
    return read_bundle(root / name / read_serving(root, name).live)


def set_live(root: Path, name: str, version: str) -> Serving:
    """Make ``version`` live and remember the one before it. :raises BundleError: if it does not exist."""
    return change_serving(root, name, lambda now: Serving(live=version) if now is None else now.with_live(version))


def change_serving(root: Path, name: str, change: Callable[[Serving | None], Serving]) -> Serving:
    """Replace what ``serving.json`` says, in one step and against other writers; returns what it says then.

    :param change: gets what it says now, None if nothing is live yet or the file is damaged.
    :raises BundleError: if it would not be valid then, or a version that is named does not exist.
    """
    if not versions(root, name):
        raise BundleError(f"no bundle at {root / name}: it has no version. Export one first.")
    with _locked(root / name):
        try:
            now: Serving | None = read_serving(root, name)
        except BundleError:
            now = None
        try:
            serving = change(now)
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(map(str, problem["loc"]))
            raise BundleError(
                f"{where} of {name} cannot be {problem['input']!r}: {problem['msg']}. Versions are 1, 2, 3 …."
            ) from error
        canary = serving.canary.version if serving.canary is not None else None
        for version in (serving.live, canary, serving.shadow):
            if version is not None:
                read_bundle(root / name / version)
        if serving != now:
            content = orjson.dumps(serving.model_dump(exclude_none=True), option=orjson.OPT_INDENT_2)
            write_atomic(root / name / SERVING, content + b"\n")
        return serving


@contextmanager
def staging(root: Path, name: str) -> Iterator[Path]:
    """A hidden folder beside the model's versions, removed on leaving unless :func:`publish` took it."""
    folder = root / check_name(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=".staging-", dir=folder))
    except OSError as error:
        raise BundleError(
            f"the repository {root} cannot be written: {error.strerror}. Give one that {this_user()} may write, or "
            "mount its volume writable here; only servers can do with a read-only one."
        ) from error
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def publish(root: Path, name: str, stage: Path, manifest: Callable[[str], Manifest]) -> Bundle:
    """Turn a staged folder into the next version; it is not live until :func:`set_live`.

    ``manifest`` is called with the version that was allotted. All files are on the disk before the rename.
    """
    folder = root / check_name(name)
    with _locked(folder):
        published = versions(root, name)
        version = str(int(published[-1]) + 1 if published else 1)
        (stage / MANIFEST).write_bytes(manifest(version).to_json())
        for path in (*stage.rglob("*"), stage):
            fsync_path(path)
        stage.chmod(0o755)
        stage.rename(folder / version)
        fsync_path(folder)
    return read_bundle(folder / version)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the model's lock against other processes; it is released when this one ends, however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with held(folder / ".lock", wait=True):
        yield
