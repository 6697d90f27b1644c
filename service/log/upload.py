"""Copies sealed segments of the log to any store that fsspec knows, off the request path.

One thread looks for sealed files without a copy. Each goes to the same relative path below the URL, so a second copy
of a file replaces the first by the same bytes. An empty marker beside a file says that it has a copy: what was not
copied when the server ended is found by the next one, and the quota of the log prefers files with a marker.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from service.contract.errors import PlumblineError, SettingsError
from service.contract.files import held
from service.contract.segments import uploaded_marker, without_copy
from service.terminal.install import how_to_install

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

logger = logging.getLogger(__name__)

_LONGEST_PAUSE = 300.0  # seconds between two attempts at a store that is away
# These show an object only when it is whole, and need no folders. Elsewhere a file is written aside and moved.
_OBJECT_STORES = frozenset(["s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oss", "oci"])
_LOCK = ".upload.lock"


class UploadError(PlumblineError):
    """A segment could not be copied, or its copy is not whole."""

    code = "upload"


class UploadTarget:
    """A folder of an fsspec file system."""

    def __init__(self, files: AbstractFileSystem, root: str) -> None:
        self._files = files
        self._root = root.rstrip("/")
        protocols = {files.protocol} if isinstance(files.protocol, str) else set(files.protocol)
        self._aside = protocols.isdisjoint(_OBJECT_STORES)

    def put(self, source: Path, key: str) -> None:
        """Copy a file to ``key`` below the root. :raises UploadError: if the copy has another size."""
        target = f"{self._root}/{key}"
        written = f"{target}.part" if self._aside else target
        if self._aside:
            self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
        self._files.put_file(str(source), written)
        size, expected = self._files.size(written), source.stat().st_size
        if size != expected:
            raise UploadError(f"the copy of {source} at {written} has {size} bytes, not {expected}.")
        if self._aside:
            self._files.mv(written, target)


def open_store(url: str) -> UploadTarget:
    """The store behind a URL: ``s3://bucket/prefix``, ``gs://…``, ``file:///mnt/logs``.

    :raises SettingsError: if the URL cannot be used, or what it needs is not installed.
    """
    if urlsplit(url).password is not None:
        raise SettingsError("PLUMBLINE_LOG_UPLOAD holds a password. Give credentials by the store's own variables.")
    try:
        from fsspec.core import url_to_fs

        files, root = url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        raise SettingsError(
            f"PLUMBLINE_LOG_UPLOAD is {url}, which needs a package: {error}. "
            f"fsspec and S3 come so: {how_to_install('upload')}."
        ) from error
    except Exception as error:  # each store has its own
        raise SettingsError(f"PLUMBLINE_LOG_UPLOAD is {url}, which cannot be used: {error}.") from error
    return UploadTarget(files, root)


class Uploader:
    """Works from its construction until :meth:`close`.

    :param every: seconds between two looks at the log; after failures the pause doubles, up to five minutes.
    :param on_result: called with (model, whether it worked) after each attempt.
    :param on_pending: called with the number of files that wait.
    """

    def __init__(
        self,
        log: Path,
        store: UploadTarget,
        *,
        every: float,
        on_result: Callable[[str, bool], None] = lambda model, worked: None,
        on_pending: Callable[[int], None] = lambda count: None,
    ) -> None:
        self._log = log
        self._store = store
        self._every = every
        self._on_result = on_result
        self._on_pending = on_pending
        self._failures: dict[Path, int] = {}
        self._stopping = threading.Event()
        self._ends = float("inf")
        self._thread = threading.Thread(target=self._work, name="uploader", daemon=True)
        self._thread.start()

    def close(self, seconds: float) -> None:
        """Copy what still can be copied in this time; the rest is left to the next start."""
        self._ends = time.monotonic() + seconds
        self._stopping.set()
        self._thread.join(seconds + 1)

    def _work(self) -> None:
        failed = 0
        while not self._stopping.wait(min(self._every * 2**failed, _LONGEST_PAUSE) if failed else self._every):
            failed = 0 if self._pass() else min(failed + 1, 16)
        self._pass()

    def _pass(self) -> bool:
        """Copy everything that waits; False after the first failure, which is tried last in the next pass."""
        try:
            with held(self._log / _LOCK) as alone:
                if alone:
                    return self._copy_all()
                self._on_pending(0)  # another process copies, and counts
        except Exception:  # a folder that vanished, a disk that is full: the thread must outlive it
            logger.exception("the log could not be searched for files to copy")
            return False
        return True

    def _copy_all(self) -> bool:
        waiting = sorted(without_copy(self._log), key=lambda path: (self._failures.get(path, 0), path))
        self._failures = {path: self._failures[path] for path in waiting if path in self._failures}
        for done, path in enumerate(waiting):
            self._on_pending(len(waiting) - done)
            if time.monotonic() > self._ends:
                return False
            if not self._copy(path):
                return False
        self._on_pending(0)
        return True

    def _copy(self, path: Path) -> bool:
        key = path.relative_to(self._log)
        error: Exception | None = None
        try:
            self._store.put(path, key.as_posix())
            uploaded_marker(path).touch()
        except Exception as raised:  # each store has its own
            error = raised
        if not path.exists():  # the quota took it meanwhile
            uploaded_marker(path).unlink(missing_ok=True)
            return True
        self._on_result(key.parts[0], error is None)
        if error is not None:
            self._failures[path] = self._failures.get(path, 0) + 1
            logger.warning("%s could not be copied (attempt %d): %s", key, self._failures[path], error)
        return error is None
