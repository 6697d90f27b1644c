"""Errors that FastAPI's own layers see, as responses: ours, and those of its router and its validation."""

from __future__ import annotations

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from service.contract.errors import PlumblineError
from service.errors import as_response, internal_error, response_to
from service.http.route_table import RouteTable
from service.telemetry import context

_CODES = {400: "malformed", 404: "not_found", 405: "method_not_allowed"}


def add_error_handlers(api: FastAPI, routes: RouteTable) -> None:
    """:param routes: say which methods a path has: FastAPI names those of the first route with it only."""

    def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        headers = dict(error.headers or {})
        if error.status_code == 405 and (methods := routes.methods(context.route_of(request.scope))):
            headers = {"allow": ", ".join(methods)}
        code = _CODES.get(error.status_code, "http")
        return as_response(error.status_code, code, f"{error.detail}.", headers)

    api.add_exception_handler(PlumblineError, _on_error)
    api.add_exception_handler(RequestValidationError, _on_invalid)
    api.add_exception_handler(HTTPException, on_http)
    api.add_exception_handler(Exception, _on_unexpected)


def _on_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, PlumblineError)
    context.failed(request.scope, error.code)
    return response_to(error)


def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problem = error.errors()[0]
    if problem["type"] == "json_invalid":
        return as_response(400, "malformed", f"the body is not valid JSON: {problem['ctx']['error']}.")
    where = ".".join(str(part) for part in problem["loc"] if part != "body") or "the body"
    return as_response(422, "invalid_request", f"{where}: {problem['msg']}.")


def _on_unexpected(request: Request, error: Exception) -> Response:
    return internal_error()  # FastAPI raises it again, and the middleware logs it
