"""What a process says on stderr: lines for people, or one JSON object a line for a log store."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal, TextIO

LogFormat = Literal["text", "json"]
Fields = Callable[[], Mapping[str, str]]

_SPOKEN = ("service", "export", "monitoring", "plumbline", "uvicorn.error")


def log_to_stderr(format_: LogFormat = "text", fields: Fields = dict) -> None:
    """Show what our own parts and the HTTP server say, and of libraries only warnings.

    :param fields: asked for each line; what is known of the work that it is about, such as the request's id.
    """
    root = logging.getLogger()
    for before in [one for one in root.handlers if isinstance(one, _Stderr)]:
        root.removeHandler(before)
    handler = _Stderr()
    handler.setFormatter(_JsonFormatter(fields) if format_ == "json" else _TextFormatter(fields))
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    for name in _SPOKEN:
        logging.getLogger(name).setLevel(logging.INFO)


def announce(lines: Sequence[str], format_: LogFormat = "text") -> None:
    """Say on stderr that something is up and how to reach it: plain lines to copy from, or one line of the log."""
    if format_ == "json":
        logging.getLogger(__name__).info("%s", "; ".join(" ".join(line.split()) for line in lines))
    else:
        print("\n".join(lines), file=sys.stderr, flush=True)


class _Stderr(logging.StreamHandler[TextIO]):
    """Writes to what stderr is at the time of the line."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


class _TextFormatter(logging.Formatter):
    def __init__(self, fields: Fields) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._fields = fields

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  the name in the base class
        known = "".join(f" {name}={value}" for name, value in self._fields().items())
        return super().formatMessage(record) + known


class _JsonFormatter(logging.Formatter):
    """``extra={"fields": {…}}`` of a call adds to the object."""

    def __init__(self, fields: Fields) -> None:
        super().__init__()
        self._fields = fields

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._fields(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)  # in ASCII, so that no text can break a line or an encoding
