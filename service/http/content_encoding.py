"""Content codings of requests (RFC 9110, section 8.4): ``gzip`` and ``deflate``, under the limit of a plain body."""

from __future__ import annotations

import zlib

from service.errors import BodyTooLarge, Malformed, UnsupportedCoding

_GZIP, _ZLIB, _RAW = 31, 15, -15  # window bits, by which zlib tells the formats apart
_CODINGS = frozenset(["gzip", "x-gzip", "deflate"])
_MOST = 2  # codings on top of each other
_MEMBERS = 64  # of a gzip body, each of which costs a look at all that follow


def decode(content: bytes, coding: str, most: int) -> bytes:
    """A body as it was before ``Content-Encoding``.

    :param most: bytes that it may have then.
    :raises UnsupportedCoding: naming the coding. :raises BodyTooLarge: past the limit, without unpacking the rest.
    :raises Malformed: if it is not what it says.
    """
    codings = [one for part in coding.lower().split(",") if (one := part.strip()) not in ("", "identity")]
    unknown = [one for one in codings if one not in _CODINGS]
    if unknown or len(codings) > _MOST:
        raise UnsupportedCoding(f"an encoding of {coding[:100]!r} cannot be read. Send gzip, deflate or a plain body.")
    for one in reversed(codings):
        content = _inflate(content, one, most)
    return content


def _inflate(content: bytes, coding: str, most: int) -> bytes:
    found = b""
    for _ in range(_MEMBERS):
        unpacker = zlib.decompressobj(_window(content, coding))
        try:
            found += unpacker.decompress(content, most + 1 - len(found))
        except zlib.error as error:
            raise Malformed(f"the body is not {coding}: {error}.") from error
        if len(found) > most:
            raise BodyTooLarge(f"the body is over the limit of {most} bytes. Send fewer texts.")
        if not unpacker.eof:
            raise Malformed(f"the body ends within its {coding} encoding.")
        content = unpacker.unused_data
        if not content:
            return found
        if coding == "deflate" or not content.startswith(b"\x1f\x8b"):  # gzip may be of several members
            break
    raise Malformed(f"there are {len(content)} bytes behind the end of the {coding} encoding.")


def _window(content: bytes, coding: str) -> int:
    """What clients call deflate is zlib's format, as it should be, or the bare one."""
    if coding != "deflate":
        return _GZIP
    is_zlib = len(content) > 1 and content[0] & 15 == 8 and int.from_bytes(content[:2], "big") % 31 == 0
    return _ZLIB if is_zlib else _RAW
