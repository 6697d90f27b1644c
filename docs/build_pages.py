"""Writes what other pages are made of: docs/api.md from OpenAPI, the table of docs/configuration.md from the settings.

``python docs/build_pages.py``; a test compares.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from service import cli
from service.app import create_app
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
        table = CliRunner().invoke(cli._build(), ["config", "--markdown"]).stdout
    finally:
        os.environ.update(ours)
    return (FOLDER / "configuration.md").read_text(encoding="utf-8").partition(_TABLE)[0] + table


def api() -> str:
    """docs/api.md."""
    with tempfile.TemporaryDirectory() as folder:
        described = create_app(ServiceSettings(repo=Path(folder))).openapi()
    routes: dict[str, list[str]] = {}
    for path, methods in described["paths"].items():
        for method, route in methods.items():
            routes.setdefault(route["tags"][0], []).append("\n".join(_route(described, method, path, route)))
    parts = [_INTRODUCTION]
    for tag, found in routes.items():
        parts.append(f"## {tag[:1].upper()}{tag[1:]}\n")
        parts += found
    return "\n".join(parts)


def _route(described: dict[str, Any], method: str, path: str, route: dict[str, Any]) -> Iterator[str]:
    yield f"### {method.upper()} {path}\n"
    if meaning := " ".join(route.get("description", "").replace("``", "`").split()):
        yield f"{meaning}\n"
    rows = [*_parameters(route), *_body(route)]
    if rows:
        yield "| | where | type | |\n|---|---|---|---|"
        yield from rows
        yield ""
    success = next(code for code in route["responses"] if code.startswith("2"))
    shape = route["responses"][success].get("content", {}).get("application/json", {}).get("schema")
    answer = f"Answers {success}"
    if shape:
        answer += f": {_type(_resolved(described, shape), described)}"
    yield f"{answer}.\n"


def _parameters(route: dict[str, Any]) -> Iterator[str]:
    for one in route.get("parameters", []):
        need = "" if one.get("required") or one["in"] == "path" else ", optional"
        yield _row(one["name"], f"{one['in']}{need}", one["schema"], one.get("description", ""))


def _body(route: dict[str, Any]) -> Iterator[str]:
    content = route.get("requestBody", {}).get("content", {}).get("application/json", {})
    schema = content.get("schema", {})
    schema = next((one for one in schema.get("anyOf", []) if one.get("type") == "object"), schema)
    yield from _fields(schema, "")


def _fields(schema: dict[str, Any], above: str) -> Iterator[str]:
    for name, field in schema.get("properties", {}).items():
        need = "body" if name in schema.get("required", []) else "body, optional"
        yield _row(f"{above}{name}", need, field, field.get("description", ""))
        for part, mark in (
            (field, "."),
            (field.get("items", {}), "[]."),
            *((one, ".") for one in field.get("anyOf", [])),
        ):
            if part.get("type") == "object":
                yield from _fields(part, f"{above}{name}{mark}")


def _row(name: str, where: str, schema: dict[str, Any], meaning: str) -> str:
    return f"| `{name}` | {where} | {_type(schema, {})} | {meaning} |".replace(" |  |", " | |")


def _resolved(described: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in schema:
        return schema
    found: dict[str, Any] = described["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return found


def _type(schema: dict[str, Any], described: dict[str, Any]) -> str:
    """A schema in a few words."""
    schema = _resolved(described, schema)
    if alternatives := schema.get("anyOf"):
        return " or ".join(dict.fromkeys(_type(one, described) for one in alternatives))
    if "enum" in schema:
        return ", ".join(f"`{one}`" for one in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    kind = str(schema.get("type", "any"))
    if kind == "array":
        return f"list of {_type(schema.get('items', {}), described)}"
    if kind == "object" and described and schema.get("properties"):
        fields = ", ".join(f"`{name}`" for name in schema["properties"])
        return f"{{{fields}}}"
    limits = [f"{word} {schema[key]}" for key, word in _LIMITS.items() if key in schema]
    return " ".join([kind, *limits])


_LIMITS = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}


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
