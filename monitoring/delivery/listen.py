"""A small receiver of webhooks, for trying things out and for demonstrations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from monitoring.delivery.webhook import verify
from monitoring.errors import SignatureError, StateError

_MOST_BYTES = 2**20


def webhook_server(
    host: str,
    port: int,
    secrets: Sequence[bytes],
    received: Callable[[bytes, Mapping[str, str]], None],
    refused: Callable[[str], None],
) -> ThreadingHTTPServer:
    """A server that calls ``received`` with body and headers of each verified delivery and answers 401 to any other.

    Call its ``serve_forever``. :raises StateError: if the port cannot be had.
    """

    class Receiver(BaseHTTPRequestHandler):
        timeout = 30
        server_version = "plumbline-webhook"
        sys_version = ""

        def do_POST(self) -> None:
            length = self.headers.get("content-length", "")
            if not length.isdigit() or int(length) > _MOST_BYTES:
                self._answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
                return
            body = self.rfile.read(int(length))
            headers = {name.lower(): value for name, value in self.headers.items()}
            try:
                verify(secrets, headers, body)
            except SignatureError as error:
                refused(str(error))
                self._answer(HTTPStatus.UNAUTHORIZED)
                return
            received(body, headers)
            self._answer(HTTPStatus.NO_CONTENT)

        def _answer(self, status: HTTPStatus) -> None:
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the name in the base class
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = False  # closing waits for the answers that are under way

    try:
        return Server((host, port), Receiver)
    except OSError as error:
        raise StateError(
            f"{host}:{port} cannot be listened on: {error.strerror or error}. Give another --port."
        ) from error
