"""The routes of an OpenAPI description as people read them: for ``/docs`` and docs/api.md."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_LIMITS = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}


@dataclass(frozen=True)
class Field:
    """A parameter, or a field of a body; all in words."""

    name: str
    where: str
    kind: str
    meaning: str


@dataclass(frozen=True)
class Route:
    """``answer`` is the status of a success, with the shape of its body."""

    tag: str
    method: str
    path: str
    meaning: str
    fields: tuple[Field, ...]
    answer: str


def routes_of(described: dict[str, Any]) -> list[Route]:
    """Every route, by tag, in the order of the description."""
    found = [
        _route(described, method, path, route)
        for path, methods in described["paths"].items()
        for method, route in methods.items()
    ]
    tags = list(dict.fromkeys(route.tag for route in found))
    return sorted(found, key=lambda route: tags.index(route.tag))


def _route(described: dict[str, Any], method: str, path: str, route: dict[str, Any]) -> Route:
    success = next(code for code in route["responses"] if code.startswith("2"))
    shape = route["responses"][success].get("content", {}).get("application/json", {}).get("schema")
    return Route(
        route["tags"][0],
        method.upper(),
        path,
        " ".join(route.get("description", "").replace("``", "`").split()),
        (*_parameters(route), *_body(route)),
        f"{success}: {_kind(shape, described)}" if shape else success,
    )


def _parameters(route: dict[str, Any]) -> Iterator[Field]:
    for one in route.get("parameters", []):
        need = "" if one.get("required") or one["in"] == "path" else ", optional"
        yield Field(one["name"], f"{one['in']}{need}", _kind(one["schema"], {}), one.get("description", ""))


def _body(route: dict[str, Any]) -> Iterator[Field]:
    content = route.get("requestBody", {}).get("content", {}).get("application/json", {})
    schema = content.get("schema", {})
    yield from _fields(next((one for one in schema.get("anyOf", []) if one.get("type") == "object"), schema), "")


def _fields(schema: dict[str, Any], above: str) -> Iterator[Field]:
    for name, field in schema.get("properties", {}).items():
        need = "body" if name in schema.get("required", []) else "body, optional"
        yield Field(f"{above}{name}", need, _kind(field, {}), field.get("description", ""))
        inside = [(field, "."), (field.get("items", {}), "[].")] + [(one, ".") for one in field.get("anyOf", [])]
        for part, mark in inside:
            if part.get("type") == "object":
                yield from _fields(part, f"{above}{name}{mark}")


def _kind(schema: dict[str, Any], described: dict[str, Any]) -> str:
    """A schema in a few words; references are looked up in ``described``."""
    if "$ref" in schema:
        schema = described["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    if alternatives := schema.get("anyOf"):
        return " or ".join(dict.fromkeys(_kind(one, described) for one in alternatives))
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{one}`" for one in schema.get("enum", [schema.get("const")]))
    kind = str(schema.get("type", "any"))
    if kind == "array":
        return f"list of {_kind(schema.get('items', {}), described)}"
    if kind == "object" and described and schema.get("properties"):
        return "{" + ", ".join(f"`{name}`" for name in schema["properties"]) + "}"
    return " ".join([kind, *(f"{word} {schema[key]}" for key, word in _LIMITS.items() if key in schema)])
