"""What the server says once it answers: where it is, and a request to try."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping

from service.live import LiveModel
from service.settings import ServiceSettings

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104  what a browser can open instead


def ready(settings: ServiceSettings, models: Mapping[str, LiveModel], port: int) -> list[str]:
    """Lines for whoever started the server."""
    host = _EVERYWHERE.get(settings.host, settings.host)
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    names = ", ".join(f"{name} version {live.manifest.version}" for name, live in sorted(models.items()))
    log = settings.log or "nothing, so it cannot be monitored; --log FOLDER does"
    return [
        f"serving {names} on {url}",
        f"  status page {url}/",
        f"  logs to     {log}",
        f"next: {_request(settings, sorted(models), url)}",
    ]


def _request(settings: ServiceSettings, names: list[str], url: str) -> str:
    text = "a text to classify"
    if settings.model is not None or len(names) == 1:
        path, body = "/predict", json.dumps({"inputs": text})
    else:  # without a default model a request has to name its own
        tensor = {"name": "text", "datatype": "BYTES", "shape": [1], "data": [text]}
        path, body = f"/v2/models/{names[0]}/infer", json.dumps({"inputs": [tensor]})
    key = ' -H "authorization: Bearer $KEY"' if settings.api_keys or settings.admin_keys else ""
    return f"curl -s {url}{path} -H 'content-type: application/json'{key} -d {shlex.quote(body)}"
