"""What is checked before anything is measured: a URL, a server behind it, and one request that it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote, urlsplit

import httpx

from loadtest.load.protocols import Asked, Protocol
from service.contract.errors import InvalidInput, PlumblineError

KEY_VARIABLE = "PLUMBLINE_LOADTEST_KEY"
_SHOWN = 200  # characters of an answer
_OURS = {400, 404, 405, 413, 415, 421, 422}


def server_url(given: str) -> str:
    """The URL without a slash at its end. :raises InvalidInput: if it is none."""
    try:
        parts = urlsplit(given)
        port = parts.port
    except ValueError as error:
        raise InvalidInput(f"{given!r} is not a URL: {error}.") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise InvalidInput(f"{given!r} is not the URL of a server; give one as http://127.0.0.1:8000.")
    if parts.query or parts.fragment or parts.username:
        raise InvalidInput(f"{given!r} has more than a server's URL; the route is chosen by --protocol.")
    return given.rstrip("/")


def key_of(file: Path | None, environment: Mapping[str, str]) -> str | None:
    """The API key: of a file, or of the environment. :raises InvalidInput: if the file cannot be read."""
    if file is None:
        return environment.get(KEY_VARIABLE) or None
    try:
        key = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"the key file {file} cannot be read: {error}.") from error
    if not key or not key.isascii() or not key.isprintable():
        raise InvalidInput(f"{file} holds no API key; it must be one line of printable characters.")
    return key


def ask_once(
    url: str, protocol: Protocol, model: str | None, texts: Sequence[str], headers: Mapping[str, str], timeout: float
) -> Asked:
    """Send one request and tell what protocols must know of the server.

    :raises InvalidInput: if the request is not what this server answers, or it wants a key.
    :raises PlumblineError: if it is not there, or fails.
    """
    with httpx.Client(base_url=url, headers=dict(headers), timeout=timeout) as client:
        try:
            asked = _asked(client, protocol, model)
            request = protocol.request(texts, asked)
            response = client.post(protocol.path(asked), content=request.body, headers=dict(request.headers))
        except httpx.TimeoutException as error:
            raise PlumblineError(
                f"{url} did not answer within {timeout:g} s. Is it still loading its model?"
            ) from error
        except httpx.TransportError as error:
            raise PlumblineError(f"no server answers at {url}: {error}. Start one with `plumbline serve`.") from error
    if response.status_code != 200:
        raise _refused(response, protocol, "authorization" in headers)
    return asked


def _asked(client: httpx.Client, protocol: Protocol, model: str | None) -> Asked:
    if not protocol.names_model:
        return Asked(model or "")
    if model is None:
        model = _only_model(client)
    metadata = client.get(f"/v2/models/{quote(model, safe='')}")
    if metadata.status_code != 200:
        raise _refused(metadata, protocol, "authorization" in client.headers)
    try:
        return Asked(model, str(metadata.json()["inputs"][0]["name"]))
    except (ValueError, KeyError, IndexError, TypeError):
        return Asked(model)


def _only_model(client: httpx.Client) -> str:
    ready = client.get("/readyz")
    try:
        names = list(ready.json()["models"])
    except (ValueError, KeyError, TypeError):
        names = []
    if len(names) != 1:
        has = f"it has {', '.join(names)}" if names else "it does not say which it has"
        raise InvalidInput(f"this protocol names the server's model, and {has}. Give one with --model.")
    return str(names[0])


def _refused(response: httpx.Response, protocol: Protocol, with_key: bool) -> PlumblineError:
    status, path = response.status_code, response.request.url.path
    said = " ".join(response.text.split())[:_SHOWN]
    answer = f"{response.request.method} {path} was answered with {status}{': ' + said if said else ''}"
    if status == 401 and not with_key:
        return InvalidInput(
            f"{answer}\nThe server wants an API key: give a file that holds it with --key-file, or set {KEY_VARIABLE}."
        )
    if status in (401, 403):
        return InvalidInput(f"{answer}\nThe key is not one that may ask for predictions here.")
    if status in _OURS:
        return InvalidInput(f"{answer}\nIs {protocol.name} what this server speaks? --protocol has others.")
    return PlumblineError(f"{answer}\nNothing was measured: a server that fails on one request fails on more.")
