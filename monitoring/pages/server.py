"""What the monitor shows over HTTP: metrics, probes and reports."""

from __future__ import annotations

import html
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from prometheus_client import CONTENT_TYPE_LATEST

from monitoring.errors import StateError
from monitoring.metrics import Metrics
from service.card.page import badge, page, words

logger = logging.getLogger(__name__)

_TYPES = {".html": "text/html; charset=utf-8", ".json": "application/json"}
_TEXT = "text/plain; charset=utf-8"


@contextmanager
def serve_pages(
    host: str,
    port: int,
    metrics: Metrics,
    reports: Path,
    ready: Callable[[], bool],
    notes: Callable[[], Sequence[str]] = lambda: (),
    models: Callable[[], Iterable[str]] = lambda: (),
    timeline: Callable[[str], str | None] = lambda model: None,
) -> Iterator[str]:
    """Serve in a thread; yields the address. ``notes`` are sentences for the first page, ``models`` are HTML for it.

    ``timeline`` is the page of a model, or None if there is none of that name.

    :raises StateError: if the port cannot be had.
    """
    parts = {
        "metrics": metrics,
        "reports": reports,
        "ready": staticmethod(ready),
        "notes": staticmethod(notes),
        "models": staticmethod(models),
        "timeline": staticmethod(timeline),
    }
    handler = type("Handler", (_Pages,), parts)
    try:
        server = ThreadingHTTPServer((host, port), handler)
    except OSError as error:
        raise StateError(
            f"{host}:{port} cannot be listened on: {error.strerror or error}. Give another --port."
        ) from error
    thread = threading.Thread(target=server.serve_forever, name="pages", daemon=True)
    thread.start()
    try:
        yield f"http://{host}:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Pages(BaseHTTPRequestHandler):
    metrics: Metrics
    reports: Path
    ready: Callable[[], bool]
    notes: Callable[[], Sequence[str]]
    models: Callable[[], Iterable[str]]
    timeline: Callable[[str], str | None]
    timeout = 30
    server_version = "plumbline-monitor"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer one of the known paths."""
        path = unquote(urlsplit(self.path).path)
        if path == "/metrics":
            self._answer(HTTPStatus.OK, CONTENT_TYPE_LATEST, self.metrics.text())
        elif path == "/livez":
            self._answer(HTTPStatus.OK, _TEXT, b"alive\n")
        elif path == "/readyz":
            ready = self.ready()
            self._answer(
                HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE,
                _TEXT,
                b"ready\n" if ready else b"no round has finished lately; see the log\n",
            )
        elif path == "/":
            self._answer(HTTPStatus.OK, _TYPES[".html"], self._index())
        elif path.startswith("/models/"):
            self._timeline(path.removeprefix("/models/"))
        elif path in ("/reports", "/reports/"):
            self._answer(HTTPStatus.OK, _TYPES[".html"], self._list())
        elif path.startswith("/reports/"):
            self._report(path.removeprefix("/reports/"))
        else:
            self._answer(HTTPStatus.NOT_FOUND, _TEXT, b"try /metrics, /livez, /readyz or /reports/\n")

    do_HEAD = do_GET  # noqa: N815  the name that http.server looks for

    def _timeline(self, model: str) -> None:
        try:
            found = self.timeline(model)
        except Exception as error:  # as of the first page
            logger.exception("the page of %r cannot be made", model)
            body = [f"<p>{badge('the state cannot be read', 'bad')} {html.escape(str(error))}</p>"]
            found = page(f"{model}: timeline", body, links=[("Monitor", "/")])
        if found is None:
            self._answer(HTTPStatus.NOT_FOUND, _TEXT, b"no window of such a model was seen\n")
        else:
            self._answer(HTTPStatus.OK, _TYPES[".html"], found.encode())

    def _report(self, name: str) -> None:
        try:
            file = (self.reports / name).resolve()
            kind = _TYPES.get(file.suffix)
            if kind is None or not file.is_relative_to(self.reports.resolve()):
                raise FileNotFoundError
            content = file.read_bytes()
        except (OSError, ValueError):  # ValueError: a null byte in the path
            self._answer(HTTPStatus.NOT_FOUND, _TEXT, b"no such report; only the newest are kept\n")
            return
        self._answer(HTTPStatus.OK, kind, content)

    def _index(self) -> bytes:
        try:
            models = list(self.models())
        except Exception as error:  # the page is for people who look what is wrong
            logger.exception("the page of the monitor cannot be made")
            models = [f"<p>{badge('the state cannot be read', 'bad')} {html.escape(str(error))}</p>"]
        ready = badge("at work", "good") if self.ready() else badge("no round has finished lately; see its log", "bad")
        notes = "".join(f"<li>{words(note)}</li>" for note in self.notes())
        body = [f"<p>{ready}</p>", f"<ul>{notes}</ul>" if notes else "", *models]
        links = [("All reports", "/reports/"), ("Metrics", "/metrics"), ("Readiness", "/readyz")]
        return page("Plumbline: monitor", body, heading="Monitor", links=links, refresh=60).encode()

    def _list(self) -> bytes:
        pages = sorted(self.reports.glob("*/*.html"), key=lambda page: page.name, reverse=True)
        links = [
            f'<li><a href="/reports/{quote(one.parent.name)}/{quote(one.name)}">{html.escape(one.parent.name)} '
            f"{html.escape(one.stem)}</a></li>"
            for one in pages
        ]
        body = [f"<ul>{''.join(links)}</ul>" if links else "<p>None yet.</p>"]
        return page("Plumbline: drift reports", body, heading="Drift reports", links=[("Monitor", "/")]).encode()

    def _answer(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(content)))
        self.send_header("x-content-type-options", "nosniff")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the name in the base class
        """Requests are no news."""
        logger.debug(format, *args)
