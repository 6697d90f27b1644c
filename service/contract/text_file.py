"""The bytes of a data file as text, or what they are instead and the command that mends it."""

from __future__ import annotations

import codecs
import gzip
import re
import shlex
import zlib
from pathlib import Path

from service.contract.errors import DatasetError

PARQUET = b"PAR1"
_GZIP = b"\x1f\x8b"
# How a file begins: what it is, and how to make a data file of it. {stem} is its name without the suffix.
_FOREIGN: dict[bytes, tuple[str, str]] = {
    PARQUET: ("a Parquet file", "Name it so: `mv {file} {stem}.parquet`."),
    b"PK\x03\x04": (
        "a ZIP archive, as Excel's .xlsx files are",
        "Save the sheet as CSV UTF-8, or unpack the archive with `unzip {file}`.",
    ),
    b"\xd0\xcf\x11\xe0": ("an Excel file of the old kind", "Save the sheet as CSV UTF-8."),
    b"BZh": ("compressed with bzip2", "Unpack it: `bzip2 -dc {file} > {stem}.unpacked{suffix}`."),
    b"\xfd7zXZ": ("compressed with xz", "Unpack it: `xz -dc {file} > {stem}.unpacked{suffix}`."),
    b"\x28\xb5\x2f\xfd": ("compressed with Zstandard", "Unpack it: `zstd -dc {file} > {stem}.unpacked{suffix}`."),
    b"ARROW1": ("an Arrow file", "Write it as Parquet, with pandas: `read_feather(…).to_parquet(…)`."),
}
# The longer marks first: UTF-32's begins with UTF-16's.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_SAMPLE = 4096
_LINE_END = re.compile(rb"\r\n?|\n")


def read_bytes(path: Path) -> bytes:
    """The content of a regular file. :raises DatasetError: if there is none, or it cannot be read."""
    try:
        if path.is_dir():
            raise DatasetError(f"{path} is a folder. Give a data file in it.")
        if path.exists() and not path.is_file():
            raise DatasetError(f"{path} is no regular file. Save what it gives to one.")
        raw = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror or error}.") from error
    except MemoryError as error:
        raise DatasetError(f"{path} is larger than the memory that is free. Give a part of it.") from error
    if not raw:
        raise DatasetError(f"{path} is empty.")
    return raw


def read_text(path: Path) -> str:
    """A file in UTF-8, or in UTF-16 or UTF-32 with a byte order mark, gzipped or not.

    :raises DatasetError: if it is anything else; the message says what, and how to mend it.
    """
    raw = read_bytes(path)
    if raw.startswith(_GZIP):
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as error:
            raise DatasetError(f"{path} is a damaged gzip file: {error}. Make it again.") from error
        except MemoryError as error:
            raise DatasetError(f"{path} is larger than the memory that is free. Give a part of it.") from error
    refuse_foreign(path, raw)
    for mark, encoding in _MARKS.items():
        if raw.startswith(mark):
            try:
                return raw.decode(encoding)
            except UnicodeDecodeError as error:
                raise DatasetError(
                    f"{path} begins as {encoding.upper()} does and is damaged at byte {error.start}: {error.reason}."
                ) from error
    _refuse_nul(path, raw)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{path} is not UTF-8: byte 0x{raw[error.start]:02x} in line {_line(raw, error.start)}. Convert it, for "
            f"example with {_iconv(path, 'WINDOWS-1252')}."
        ) from error


def refuse_foreign(path: Path, raw: bytes, *, but: bytes | None = None) -> None:
    """:raises DatasetError: if the bytes begin as those of a known kind of file do, except the kind ``but``."""
    for begin, (what, mend) in _FOREIGN.items():
        if raw.startswith(begin) and begin != but:
            given = {"file": shlex.quote(str(path)), "stem": shlex.quote(str(path.with_suffix("")))}
            raise DatasetError(f"{path} is {what}, whatever its name says. {mend.format(**given, suffix=path.suffix)}")


def _refuse_nul(path: Path, raw: bytes) -> None:
    """Text has no NUL bytes, but every other byte of UTF-16 may be one."""
    if (offset := raw.find(b"\0")) < 0:
        return
    even, odd = (raw[start:_SAMPLE:2] for start in (0, 1))
    for encoding, zeros, others in (("UTF-16LE", odd, even), ("UTF-16BE", even, odd)):
        if zeros.count(0) > 0.4 * len(zeros) and others.count(0) < 0.05 * len(others):
            raise DatasetError(
                f"{path} looks like {encoding} without a byte order mark. Convert it: {_iconv(path, encoding)}."
            )
    raise DatasetError(
        f"{path} has a NUL byte in line {_line(raw, offset)}: it is damaged, or no text at all. Save it again as UTF-8."
    )


def _iconv(path: Path, encoding: str) -> str:
    made = path.with_suffix(f".utf-8{path.suffix}")
    return f"`iconv -f {encoding} -t UTF-8 {shlex.quote(str(path))} > {shlex.quote(str(made))}`"


def _line(raw: bytes, offset: int) -> int:
    return len(_LINE_END.findall(raw, 0, offset)) + 1
