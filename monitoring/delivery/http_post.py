"""One HTTP request with a deadline for all of it, however slowly the other side lets its answer drip."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass

import httpx

_MOST = 64 * 2**10  # bytes of an answer that are read; beyond its status it is only good for a reason


@dataclass(frozen=True)
class Answered:
    """The answer, as far as it was read."""

    status: int
    headers: httpx.Headers
    content: bytes


class NotAnswered(Exception):  # noqa: N818  what happened
    """There was no answer, or not in time; the message says why."""


def post(
    url: str, body: bytes, headers: Mapping[str, str], seconds: float, trusted: ssl.SSLContext | None = None
) -> Answered:
    """POST, without following redirects. Blocking; for threads without an event loop.

    :param seconds: for the whole request, from the look at the name to the last byte that is read.
    :param trusted: whom to trust instead of the usual authorities; then no proxy is used, either.
    :raises NotAnswered: without a whole head in that time.
    """
    try:
        return asyncio.run(_post(url, body, headers, seconds, trusted))
    except TimeoutError:
        raise NotAnswered(f"no answer within {seconds:g} s") from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as error:
        raise NotAnswered(f"{type(error).__name__}: {error}"[:300]) from error


async def _post(
    url: str, body: bytes, headers: Mapping[str, str], seconds: float, trusted: ssl.SSLContext | None
) -> Answered:
    async with (
        asyncio.timeout(seconds),
        httpx.AsyncClient(timeout=None, verify=trusted or True, trust_env=trusted is None) as client,  # noqa: S113
        client.stream("POST", url, content=body, headers=dict(headers)) as response,
    ):
        content = b""
        async for part in response.aiter_raw():
            content += part
            if len(content) >= _MOST:
                break
        return Answered(response.status_code, response.headers, content[:_MOST])
