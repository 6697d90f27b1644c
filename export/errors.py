"""Errors of the export package; see ``service.contract.errors`` for the tree that they hang in."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.contract.errors import InvalidInput, PlumblineError


class CheckpointError(InvalidInput):
    """A checkpoint is missing, damaged, or does not fit the data."""

    code = "invalid_checkpoint"


class DiskFull(PlumblineError):  # noqa: N818  reads better where it is raised
    """There was no room to write; nothing half-written was left."""

    code = "disk_full"


class ParityError(PlumblineError):
    """The exported graph does not compute what the checkpoint computes."""

    code = "parity"


class Busy(PlumblineError):  # noqa: N818  a state, not a failure
    """Another process is doing the same work."""

    code = "busy"


@contextmanager
def disk_full_named(folder: Path) -> Iterator[None]:
    """Turn a full disk into :class:`DiskFull`. The native writers (safetensors, ONNX) only say it in their message."""
    try:
        yield
    except PlumblineError:
        raise
    except Exception as error:
        no_room = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        if no_room or "No space left on device" in str(error):
            raise DiskFull(
                f"no space left while writing below {folder}; nothing half-written stays. Free some space and repeat."
            ) from error
        raise
