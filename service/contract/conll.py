"""Files of the CoNLL shared tasks: a word a line with its tag in the last column, an empty line between sentences.

Tags are ``O``, or a prefix and a kind: ``B-`` begins an entity, ``I-`` goes on with it, and of the schemes with more of
them ``E-`` and ``L-`` end one and ``S-`` and ``U-`` are one by themselves (Ramshaw and Marcus 1995; Ratinov and Roth
2009). A text is its words with a space between each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from service.contract.errors import DatasetError
from service.contract.spans import Span
from service.contract.text_file import read_text

SUFFIXES = (".conll", ".bio", ".iob", ".iob2")
_DOCUMENT = "-DOCSTART-"
_PREFIXES = "BIELSU"


def sentences(path: Path, tag_column: int | None = None) -> Iterator[tuple[int, str, list[Span]]]:
    """Each sentence's first line, its text and its entities.

    :param tag_column: which column has the tags, counted from 1; the last one without it.
    :raises DatasetError: naming the line, if one has no tag or a tag that is none.
    """
    words: list[str] = []
    tags: list[str] = []
    begun = 1
    for number, line in enumerate([*read_text(path).split("\n"), ""], start=1):
        line = line.rstrip("\r")
        if not line.strip() or line.startswith(_DOCUMENT):
            if words:
                yield begun, " ".join(words), spans_of(words, tags)
            words, tags = [], []
            continue
        cells = line.split("\t") if "\t" in line else line.split()
        if line.startswith("# ") and not words and not is_tag(cells[-1]):
            continue  # a comment before a sentence
        if len(cells) == 1:
            raise DatasetError(f"{path}: line {number} has no tag beside {cells[0][:40]!r}. Give a word and its tag.")
        if tag_column is not None and not 1 <= tag_column <= len(cells):
            raise DatasetError(f"{path}: line {number} has {len(cells)} columns, and tags were to be in {tag_column}.")
        word, tag = cells[0].strip(), cells[-1 if tag_column is None else tag_column - 1].strip()
        if not word:
            raise DatasetError(f"{path}: line {number} has a tag and no word. Fill it in or remove the line.")
        if not is_tag(tag):
            raise DatasetError(
                f"{path}: line {number} has the tag {tag[:40]!r}; tags are O, or B- or I- and a kind, as B-PER."
            )
        if not words:
            begun = number
        words.append(word)
        tags.append(tag)


def is_tag(text: str) -> bool:
    """Whether it is ``O``, or a known prefix and a kind."""
    return text == "O" or (text[:1] in _PREFIXES and text[1:2] == "-" and bool(text[2:]))


def spans_of(words: Sequence[str], tags: Sequence[str]) -> list[Span]:
    """The entities of words that are joined by spaces."""
    found: list[Span] = []
    at, open_kind = 0, ""
    for word, tag in zip(words, tags, strict=True):
        prefix, kind = tag[:1], tag[2:]
        end = at + len(word)
        if kind and (prefix in "IEL") and kind == open_kind:
            found[-1] = Span(found[-1].start, end, kind)
        elif kind:
            found.append(Span(at, end, kind))
        open_kind = "" if prefix in "ELSU" else kind
        at = end + 1
    return found
