"""What the server says once it answers: where it is, and a request to try."""

from __future__ import annotations

import json
import shlex

from service.models.predictor import Predictor
from service.settings import ServiceSettings

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104  what a browser can open instead


def ready(settings: ServiceSettings, predictor: Predictor, port: int) -> list[str]:
    """Lines for whoever started the server."""
    url = _address(settings, port)
    names = ", ".join(f"{name} version {live.manifest.version}" for name, live in sorted(predictor.models.items()))
    log = settings.log or "nothing, so it cannot be monitored; --log FOLDER does"
    lines = [f"serving {names} on {settings.unix_socket or url}", f"  status page {url}/", f"  logs to     {log}"]
    if len(predictor.models) > 1:
        lines.append(f"  /predict    answers by {predictor.default}; /models/NAME/predict by the others")
    return [*lines, f"next: {_request(settings, url)}"]


def _address(settings: ServiceSettings, port: int) -> str:
    scheme = "http" if settings.tls_cert is None else "https"
    if settings.unix_socket is not None:
        return f"{scheme}://localhost"
    host = _EVERYWHERE.get(settings.host, settings.host)
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _request(settings: ServiceSettings, url: str) -> str:
    body = json.dumps({"inputs": "a text to classify"})
    by = f" --unix-socket {shlex.quote(str(settings.unix_socket))}" if settings.unix_socket is not None else ""
    by += f" --cacert {shlex.quote(str(settings.tls_cert))}" if settings.tls_cert is not None else ""
    key = ' -H "authorization: Bearer $KEY"' if settings.api_keys or settings.admin_keys else ""
    return f"curl -s{by} {url}/predict -H 'content-type: application/json'{key} -d {shlex.quote(body)}"
