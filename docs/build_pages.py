"""Writes what other pages are made of: docs/api.md from OpenAPI, the table of docs/configuration.md from the settings.

``python docs/build_pages.py``; a test compares.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from typer.testing import CliRunner

from plumbline import cli
from service.http.app import create_app
from service.http.openapi import Route, routes_of
from service.settings import ServiceSettings

FOLDER = Path(__file__).parent
_TABLE = "| variable |"
_INTRODUCTION = """\
# API

Every route of `plumbline serve`, made of its OpenAPI description, which a running server has at `/openapi.json` and
shows at `/docs`. [http.md](http.md) explains them; [security.md](security.md) says which want a key, and what is
refused.

Bodies are JSON in UTF-8 whatever `Content-Type` says, plain or as `Content-Encoding: gzip` or `deflate`. Errors are
`{"error": "what, where, how to mend it", "code": "…", "error_type": "…"}`. `HEAD` is answered wherever `GET` is.
"""


def configuration() -> str:
    """docs/configuration.md with the table as the settings are now."""
    ours = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("PLUMBLINE_")}
    try:
        table = CliRunner().invoke(cli.build(), ["config", "--markdown"]).stdout
    finally:
        os.environ.update(ours)
    return (FOLDER / "configuration.md").read_text(encoding="utf-8").partition(_TABLE)[0] + table


def api() -> str:
    """docs/api.md."""
    with tempfile.TemporaryDirectory() as folder:
        described = create_app(ServiceSettings(repo=Path(folder))).api.openapi()
    parts, tag = [_INTRODUCTION], ""
    for route in routes_of(described):
        if route.tag != tag:
            tag = route.tag
            parts.append(f"## {tag[:1].upper()}{tag[1:]}\n")
        parts.append("\n".join(_section(route)))
    return "\n".join(parts)


def _section(route: Route) -> Iterator[str]:
    yield f"### {route.method} {route.path}\n"
    if route.meaning:
        yield f"{route.meaning}\n"
    if route.fields:
        yield "| | where | type | |\n|---|---|---|---|"
        for one in route.fields:
            yield f"| `{one.name}` | {one.where} | {one.kind} | {one.meaning} |".replace(" |  |", " | |")
        yield ""
    yield f"Answers {route.answer}.\n"


def files() -> dict[Path, str]:
    """What is written, by path."""
    return {FOLDER / "configuration.md": configuration(), FOLDER / "api.md": api()}


def main() -> None:
    """Write both."""
    for path, content in files().items():
        path.write_text(content, encoding="utf-8")
        print(path.relative_to(FOLDER.parent), file=sys.stderr)


if __name__ == "__main__":
    main()
