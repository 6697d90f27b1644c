"""Durable writes: the old file or the whole new one, whatever happens."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import resource
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from service.contract.files import sha256_file, write_atomic

WRITER = """
import sys
from pathlib import Path
from service.contract.files import write_atomic
print("ready", flush=True)
number = 0
while True:
    write_atomic(Path(sys.argv[1]), (b"%d;" % (number % 10)) * 100_000)
    number += 1
"""


def test_new_content_replaces_the_old(tmp_path: Path) -> None:
    path = tmp_path / "serving.json"
    for content in (b"old", b"", b"new" * 10_000):
        write_atomic(path, content)
        assert path.read_bytes() == content
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_the_old_content_stays_on_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    path = tmp_path / "serving.json"
    write_atomic(path, b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if step == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    else:
        monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_old_content_stays_when_the_file_may_not_grow(tmp_path: Path) -> None:
    path = tmp_path / "serving.json"
    write_atomic(path, b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_atomic(path, b"new" * 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomic(tmp_path / "none" / "serving.json", b"new")


@pytest.mark.parametrize("delay", [0.0, 0.011, 0.023, 0.05])
def test_a_writer_killed_at_any_point_leaves_a_whole_file(tmp_path: Path, delay: float) -> None:
    path = tmp_path / "serving.json"
    write_atomic(path, b"0;" * 100_000)
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        with contextlib.suppress(subprocess.TimeoutExpired):
            writer.wait(delay)
        writer.send_signal(signal.SIGKILL)
    content = path.read_bytes()
    assert len(content) == 200_000
    assert len(set(content.split(b";")[:-1])) == 1


def test_the_hash_of_a_file(tmp_path: Path) -> None:
    content = os.urandom(3 * 2**20 + 1)
    (tmp_path / "file").write_bytes(content)
    assert sha256_file(tmp_path / "file") == hashlib.sha256(content).hexdigest()
