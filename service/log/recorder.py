"""Writes the inference log, off the request path.

``offer`` only appends to a bounded queue. One thread drains it every ``fsync_seconds``, or when somebody waits: the
records are appended to the open segment and forced to the disk together. Full segments are sealed to Parquet by another
thread. Whatever cannot be written is dropped and counted; a prediction never waits for the disk. Feedback may: whoever
offers it can be told whether it is there.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from service.contract.features import hash_tokens
from service.contract.inputs import input_of, joined
from service.contract.record import Feedback, Record
from service.contract.sampling import share_of
from service.contract.segments import Kind, drop_oldest, seal, seal_orphans, segment_path
from service.terminal.throttled import ThrottledLogger

logger = logging.getLogger(__name__)

OnWritten = Callable[[bool], None]


def _nobody(kept: bool) -> None:
    """Is told where nobody waits."""


class _Segment:
    """One open segment: an append-only file that this process holds locked until it is sealed."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.opened = time.monotonic()
        self.bytes = 0
        self._descriptor = descriptor

    @classmethod
    def create(cls, path: Path) -> _Segment | None:
        """A new locked segment, or None if someone took the file for an orphan before it was locked."""
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink == 0:
            os.close(descriptor)
            return None
        return cls(path, descriptor)

    def append(self, data: bytes) -> None:
        """Write and fsync whole lines; on failure the file is cut back to the last whole line."""
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._descriptor, view) :]
            os.fsync(self._descriptor)
        except OSError:
            os.ftruncate(self._descriptor, self.bytes)
            os.lseek(self._descriptor, self.bytes, os.SEEK_SET)
            raise
        self.bytes += len(data)

    def close(self) -> None:
        os.close(self._descriptor)


class Recorder:
    """Bounded, lossy under pressure and honest about it.

    :param quota_bytes: what sealed files may take; beyond it the oldest are deleted.
    :param prepare: what to do to a record before its first write, on the recorder's thread: redaction.
    :param sample: share of the predictions that are kept, chosen by their ids; feedback is always kept.
    :param on_written: called with (model, records) after they are on the disk.
    :param on_left_out: called with the model of each prediction that was not chosen.
    :param on_dropped: called with (model, reason, records); reasons are ``queue``, ``disk``, ``invalid`` and ``quota``.
    """

    def __init__(
        self,
        root: Path,
        *,
        queue: int,
        fsync_seconds: float,
        seal_seconds: float,
        seal_bytes: int,
        quota_bytes: int,
        sample: float = 1.0,
        prepare: Callable[[Record | Feedback], Record | Feedback] = lambda record: record,
        on_written: Callable[[str, int], None] = lambda model, count: None,
        on_left_out: Callable[[str], None] = lambda model: None,
        on_dropped: Callable[[str, str, int], None] = lambda model, reason, count: None,
    ) -> None:
        self._root = root
        self._limit = queue
        self._fsync_seconds = fsync_seconds
        self._seal_seconds = seal_seconds
        self._seal_bytes = seal_bytes
        self._quota_bytes = quota_bytes
        self._sample = sample
        self._prepare = prepare
        self._on_written = on_written
        self._on_left_out = on_left_out
        self._on_dropped = on_dropped
        self.failing: str | None = None  # why the last records could not be written
        self._throttled = ThrottledLogger(logger)
        self._queue: deque[tuple[str, Record | Feedback, OnWritten]] = deque()
        self._open: dict[tuple[str, Kind], _Segment] = {}
        self._writer = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self._sequence = 0
        self._stopping = False
        self._wanted = threading.Event()  # somebody waits for what was offered
        self._sealer = ThreadPoolExecutor(1, thread_name_prefix="sealer")
        root.mkdir(parents=True, exist_ok=True)
        self._sealer.submit(self._seal_orphans)
        self._thread = threading.Thread(target=self._work, name="recorder", daemon=True)
        self._thread.start()

    def offer(self, model: str, record: Record | Feedback, told: OnWritten | None = None) -> bool:
        """Queue a record, unless it is not in the sample; False, and counted, if the queue is full. Never blocks.

        :param told: called on the recorder's thread, with whether the record is on the disk; it is written at once.
        """
        if self._sample < 1 and isinstance(record, Record) and share_of(record.id) >= self._sample:
            self._on_left_out(model)
            return True
        if len(self._queue) >= self._limit:
            self._on_dropped(model, "queue", 1)
            return False
        self._queue.append((model, record, told or _nobody))
        if told is not None:
            self._wanted.set()
        return True

    def close(self) -> None:
        """Write and seal everything that was offered."""
        self._stopping = True
        self._wanted.set()
        self._thread.join()
        self._sealer.shutdown()

    def _work(self) -> None:
        while not self._stopping:
            self._wanted.wait(self._fsync_seconds)
            self._wanted.clear()
            self._step()
        self._step()
        for key in list(self._open):
            self._seal(key)

    def _step(self) -> None:
        try:
            self._drain()
            self._seal_full()
        except Exception:  # this thread must outlive whatever one step met
            logger.exception("the recorder failed in a step and goes on")

    def _drain(self) -> None:
        lines: dict[tuple[str, Kind], list[tuple[bytes, OnWritten]]] = {}
        for _ in range(len(self._queue)):
            model, record, told = self._queue.popleft()
            kind: Kind = "predictions" if isinstance(record, Record) else "feedback"
            try:
                line = self._prepare(record).to_json() + b"\n"
            except (TypeError, ValueError) as error:
                self._throttled.error("invalid", "a record of %s cannot be written as JSON: %s", model, error)
                self._on_dropped(model, "invalid", 1)
                told(False)
                continue
            lines.setdefault((model, kind), []).append((line, told))
        for (model, kind), batch in lines.items():
            try:
                self._segment(model, kind).append(b"".join(line for line, _ in batch))
            except OSError as error:
                self.failing = f"{error.strerror or error}"
                self._throttled.error("disk", "%d records of %s were dropped: %s", len(batch), model, error)
                self._on_dropped(model, "disk", len(batch))
            else:
                self.failing = None
                self._throttled.over("disk", "records are written again")
                self._on_written(model, len(batch))
            for _, told in batch:
                told(self.failing is None)

    def _segment(self, model: str, kind: Kind) -> _Segment:
        segment = self._open.get((model, kind))
        now = datetime.now(UTC)
        if segment is not None and segment.path.parent.name != f"hour={now:%H}":
            self._seal((model, kind))
            segment = None
        while segment is None:
            self._sequence += 1
            segment = _Segment.create(segment_path(self._root, model, kind, now, self._writer, self._sequence))
        self._open[model, kind] = segment
        return segment

    def _seal_full(self) -> None:
        now = time.monotonic()
        for key, segment in list(self._open.items()):
            if segment.bytes >= self._seal_bytes or now - segment.opened >= self._seal_seconds:
                self._seal(key)

    def _seal(self, key: tuple[str, Kind]) -> None:
        segment = self._open.pop(key)
        self._sealer.submit(self._seal_now, segment, key[1])

    def _seal_now(self, segment: _Segment, kind: Kind) -> None:
        """Make room, then seal; on failure the lines stay in the segment, for the monitor or the next start to seal."""
        try:
            for model, count in drop_oldest(self._root, self._quota_bytes).items():
                self._throttled.error(
                    "quota", "the log is over its quota: %d records of %s were deleted that had no copy", count, model
                )
                self._on_dropped(model, "quota", count)
            seal(segment.path, kind)
        except Exception as error:
            self._throttled.error("seal", "%s could not be sealed: %r", segment.path, error)
        finally:
            segment.close()

    def _seal_orphans(self) -> None:
        try:
            if count := seal_orphans(self._root):
                logger.info("sealed %d segments that an earlier server left open", count)
        except OSError as error:
            logger.error("segments of an earlier server could not be sealed: %s", error)


def as_logged(
    record: Record | Feedback, mode: Literal["redacted", "raw", "off"], redact: Callable[[str], str]
) -> Record | Feedback:
    """A record as the log keeps it: with its text redacted, as it is, or as hashed words only."""
    if mode == "raw":
        return record
    if isinstance(record, Feedback):
        return replace(record, source=redact(record.source))
    if record.text is None:
        return record
    kept = [None if one is None else redact(one) for one in (record.text, record.text_pair)]
    if mode == "redacted":
        return replace(record, text=kept[0], text_pair=kept[1])
    words = joined(input_of(kept[0] or "", kept[1]))
    return replace(record, text=None, text_pair=None, tokens=hash_tokens(words))
