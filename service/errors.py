"""The errors that a request can end in. ``service.http.error_handlers`` turns them into responses.

PlumblineError
└── RequestError              status and code of the response
    ├── Malformed             400
    ├── Unauthorized          401
    ├── Forbidden             403
    ├── UnknownModel          404
    ├── Contradiction         409
    ├── BodyTooLarge          413
    ├── UnsupportedCoding     415
    ├── Misdirected           421
    ├── InvalidRequest        422
    ├── Overloaded            429, Retry-After
    ├── NotReady              503
    ├── LogFailing            503, Retry-After
    └── DeadlinePassed        504
"""

from __future__ import annotations

import logging

import orjson
from starlette.responses import Response

from service.contract.errors import PlumblineError

logger = logging.getLogger(__name__)

_KINDS = {429: "Overloaded", 503: "Unhealthy"}
_LONGEST = 1000  # characters of a message; whatever it names was sent by somebody


class RequestError(PlumblineError):
    """``headers`` go with the response."""

    status = 500

    @property
    def headers(self) -> dict[str, str]:
        return {}


class Malformed(RequestError):  # noqa: N818  named by what the client sees, like the rest of the tree
    code, status = "malformed", 400


class Unauthorized(RequestError):  # noqa: N818
    code, status = "unauthorized", 401

    @property
    def headers(self) -> dict[str, str]:
        return {"www-authenticate": "Bearer"}


class Forbidden(RequestError):  # noqa: N818
    code, status = "forbidden", 403


class UnknownModel(RequestError):  # noqa: N818
    code, status = "unknown_model", 404


class Contradiction(RequestError):  # noqa: N818
    """The request says something else than the server knows."""

    code, status = "contradiction", 409


class BodyTooLarge(RequestError):  # noqa: N818
    code, status = "body_too_large", 413


class UnsupportedCoding(RequestError):  # noqa: N818
    code, status = "unsupported_encoding", 415

    @property
    def headers(self) -> dict[str, str]:
        return {"accept-encoding": "gzip, deflate"}


class Misdirected(RequestError):  # noqa: N818
    code, status = "unknown_host", 421


class InvalidRequest(RequestError):  # noqa: N818
    code, status = "invalid_request", 422


class Overloaded(RequestError):  # noqa: N818
    """The queue is full; ``retry_after`` is in whole seconds."""

    code, status = "overloaded", 429

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after

    @property
    def headers(self) -> dict[str, str]:
        return {"retry-after": str(self.retry_after)}


class NotReady(RequestError):  # noqa: N818
    code, status = "not_ready", 503


class LogFailing(RequestError):  # noqa: N818
    """What was to be kept could not be written."""

    code, status = "log_failing", 503

    @property
    def headers(self) -> dict[str, str]:
        return {"retry-after": "60"}


class DeadlinePassed(RequestError):  # noqa: N818
    code, status = "deadline_passed", 504


def as_body(status: int, code: str, message: str) -> bytes:
    """``{"error": message, "code": code, "error_type": …}``; the last is for clients of Text Embeddings Inference."""
    printable = message[:_LONGEST].encode("utf-8", "backslashreplace").decode()
    kind = _KINDS.get(status, "Validation" if status < 500 else "Backend")
    return orjson.dumps({"error": printable, "code": code, "error_type": kind})


def as_response(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Response:
    """The answer to a request that failed; see :func:`as_body`."""
    return Response(as_body(status, code, message), status, headers, "application/json")


def response_to(error: PlumblineError) -> Response:
    """The answer to a request that ended in ``error``; what no request can help is in the log, too."""
    if isinstance(error, RequestError):
        return as_response(error.status, error.code, str(error), error.headers)
    logger.error("request failed: %s", error)
    return as_response(500, error.code, str(error))


def internal_error() -> Response:
    """The answer to a request that met something nobody expected."""
    return as_response(500, "internal", "the server failed on this request; its log says why.")
