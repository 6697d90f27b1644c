"""How much there is in a JSON text, counted before it is parsed.

What a parser makes of a text takes a hundred times as long as reading it where the text is all structure: a body of
4 MB may hold half a million keys, and each would become an object, and an error that says so. All of that would run
without a pause, whatever thread it ran on, since none of it gives up the interpreter's lock.
"""

from __future__ import annotations

import numpy as np

from service.errors import InvalidRequest

MOST_VALUES = 20_000  # objects, lists, and what they hold; parsed, and each wrong, in some 20 ms
_SMALL = 2 * MOST_VALUES  # bytes in which there cannot be more
_BLOCK = 2**17
_COMMA, _LIST, _OBJECT, _QUOTE = b',[{"'


def check_values(content: bytes, most: int = MOST_VALUES) -> None:
    """:raises InvalidRequest: if a JSON text holds more values than that."""
    if len(content) <= _SMALL or not _may_hold(content, most):
        return
    if _count(content, most) > most:
        raise InvalidRequest(f"the body holds more than {most} values. Send fewer texts, and no other keys.")


def _may_hold(content: bytes, most: int) -> bool:
    """Whether there are so many signs of structure at all, strings included; without looking on once there are."""
    found = 0
    for offset in range(0, len(content), _BLOCK):
        found += sum(content.count(sign, offset, offset + _BLOCK) for sign in (b",", b"[", b"{"))
        if found >= most:
            return True
    return False


def _count(content: bytes, most: int) -> int:
    """Commas and opening brackets outside of strings: at least as many as there are values, but for one.

    Block by block, and no further than needed to see that there are too many. A block does not end within an escape.
    """
    found = inside = offset = 0
    while offset < len(content) and found <= most:
        block = content[offset : offset + _BLOCK]
        if offset + len(block) < len(content):
            block = block.rstrip(b"\\") or content[offset:]
        offset += len(block)
        text = np.frombuffer(block.replace(rb"\\", b"").replace(rb"\"", b""), np.uint8)
        if not text.size:
            continue
        strings = np.bitwise_xor.accumulate((text == _QUOTE).view(np.uint8)) ^ np.uint8(inside)
        structure = (text == _COMMA) | (text == _LIST) | (text == _OBJECT)
        found += int(np.count_nonzero(structure & (strings == 0)))
        inside = int(strings[-1])
    return found
