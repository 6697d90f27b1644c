"""Writes the chart's README.md and values.schema.json from values.yaml: ``python helm/build_chart.py``.

The comment above a key says what it means; a line ``@schema {…}`` in it narrows what is allowed by keywords of JSON
Schema, and ``@schema settings of the service`` allows just the settings that there are.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from monitoring.settings import MonitorSettings
from service.contract.settings import Settings
from service.settings import ServiceSettings

CHART = Path(__file__).parent / "plumbline"
SETTINGS: dict[str, type[Settings]] = {
    "settings of the service": ServiceSettings,
    "settings of the monitor": MonitorSettings,
}
# What the chart itself decides by volumes, ports and Secrets.
CHARTS_OWN = frozenset(
    [
        "repo",
        "log",
        "host",
        "port",
        "unix_socket",
        "tls_cert",
        "tls_key",
        "redact_rules",
        "monitor_host",
        "monitor_port",
        "monitor_state",
        "retrain_job",
    ]
)

_INTRODUCTION = """\
# Plumbline's chart

Servers of text classifiers, a monitor that watches their requests for drift, and retraining as a Job. The guide to it,
with the first model, upgrades and what to watch, is in [docs/install.md](../../docs/install.md#kubernetes).

```
helm install plumbline helm/plumbline --namespace plumbline --create-namespace --values values.yaml
helm test plumbline --namespace plumbline
```

With its defaults it runs on a plain cluster: one server and the monitor on one node, on volumes of the cluster's
default class. `ci/` holds further examples, each of which is rendered and checked by the tests. What needs a resource
of its own in the cluster (Prometheus Operator, KEDA, Gateway API) is off until it is asked for.

## Values

| key | default | meaning |
|---|---|---|
"""


@dataclass(frozen=True)
class Value:
    """A key of values.yaml."""

    path: tuple[str, ...]
    default: Any
    meaning: str
    narrowed: Any
    children: tuple[Value, ...]

    @property
    def is_section(self) -> bool:
        """Whether it only holds other keys."""
        return bool(self.children)


def read_values(text: str) -> tuple[Value, ...]:
    """The keys with their comments. :raises ValueError: naming a key without a comment."""
    return tuple(_values(yaml.compose(text), text.splitlines(), ()))


def _values(node: Any, lines: list[str], above: tuple[str, ...]) -> Iterator[Value]:
    for key, value in node.value:
        path = (*above, key.value)
        meaning, narrowed = _comment(lines, key.start_mark.line, key.start_mark.column)
        if not meaning:
            raise ValueError(f"{'.'.join(path)} has no comment")
        nested = isinstance(value, yaml.MappingNode) and not value.flow_style
        children = tuple(_values(value, lines, path)) if nested else ()
        yield Value(path, yaml.safe_load(yaml.serialize(value)), meaning, narrowed, children)


def _comment(lines: list[str], line: int, indent: int) -> tuple[str, Any]:
    """The comment that ends above ``line``: its words, and what follows @schema."""
    mark, words, narrowed = " " * indent + "# ", list[str](), None
    while line > 0 and lines[line - 1].startswith(mark):
        line -= 1
        said = lines[line].removeprefix(mark)
        if said.startswith("@schema "):
            narrowed = yaml.safe_load(said.removeprefix("@schema "))
        else:
            words.insert(0, said)
    return " ".join(words), narrowed


def schema_of(values: tuple[Value, ...]) -> dict[str, Any]:
    """JSON Schema (draft 7) of a mapping with just these keys."""
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {value.path[-1]: _schema(value) for value in values},
    }


def _schema(value: Value) -> dict[str, Any]:
    if value.is_section:
        return schema_of(value.children) | {"description": value.meaning}
    if isinstance(value.narrowed, str):
        return settings_schema(SETTINGS[value.narrowed]) | {"description": value.meaning}
    return {"type": _TYPES[type(value.default)], "description": value.meaning} | (value.narrowed or {})


_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}


def settings_schema(settings: type[Settings]) -> dict[str, Any]:
    """The settings that may be given as plain values: no secrets, and nothing that the chart decides."""
    found = settings.model_json_schema()
    allowed = {
        name: _setting(field)
        for name, field in found["properties"].items()
        if name not in CHARTS_OWN and "password" not in json.dumps(field)
    }
    return {"type": "object", "additionalProperties": False, "properties": allowed}


def _setting(field: dict[str, Any]) -> dict[str, Any]:
    (kind, *_) = [one for one in field.get("anyOf", [field]) if one.get("type") != "null"]
    kept = {name: kind[name] for name in _KEYWORDS if name in kind}
    if kind["type"] == "array":  # in a variable it is separated by commas
        kept = {"type": ["array", "string"], "items": {"type": kind["items"]["type"]}}
    return {**kept, "description": field["description"]}


_KEYWORDS = ("type", "enum", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")


def readme_of(values: tuple[Value, ...]) -> str:
    """The README: an introduction, and a table of all values."""
    return _INTRODUCTION + "".join(f"{row}\n" for row in _rows(values))


def _rows(values: tuple[Value, ...]) -> Iterator[str]:
    for value in values:
        key = ".".join(value.path)
        meaning = value.meaning.replace("|", "\\|")
        if value.is_section:
            yield f"| **{key}** | | {meaning} |"
            yield from _rows(value.children)
        else:
            shown = json.dumps(value.default) if value.default not in ("", [], {}) else ""
            yield f"| `{key}` | {f'`{shown}`' if shown else ''} | {meaning} |"


def files() -> dict[Path, str]:
    """What is written, by path."""
    values = read_values((CHART / "values.yaml").read_text(encoding="utf-8"))
    schema = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "plumbline"} | schema_of(values)
    schema["properties"]["global"] = {"type": "object", "description": "Of a chart that this one is a part of."}
    return {
        CHART / "values.schema.json": json.dumps(schema, indent=2) + "\n",
        CHART / "README.md": readme_of(values),
    }


def main() -> None:
    """Write both."""
    for path, content in files().items():
        path.write_text(content, encoding="utf-8")
        print(path.relative_to(CHART.parents[1]), file=sys.stderr)


if __name__ == "__main__":
    main()
