"""A small HTTP server on loopback whose answers a test writes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Asked:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Stub:
    """``answer`` gives status and body; None closes the connection without an answer."""

    answer: Callable[[Asked], tuple[int, bytes] | None]
    url: str = ""
    asked: list[Asked] = field(default_factory=list)

    @property
    def posts(self) -> list[Asked]:
        return [one for one in self.asked if one.method == "POST"]


def ok(asked: Asked) -> tuple[int, bytes]:
    return (200, b"[]") if asked.method == "POST" else (404, b"")


class _Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that has gone is no matter here."""


@contextmanager
def stub(answer: Callable[[Asked], tuple[int, bytes] | None] = ok) -> Iterator[Stub]:
    it = Stub(answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body in one piece

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            asked = Asked(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
            it.asked.append(asked)
            answer = it.answer(asked)
            if answer is None:
                self.close_connection = True
                return
            status, content = answer
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's name
            pass

    with _Server(("127.0.0.1", 0), Handler) as server:
        it.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield it
        finally:
            server.shutdown()
            thread.join()
