"""The chart as Helm's own engine renders it, and how its objects hang together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson
import yaml
from helm_python import Chart

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "helm" / "plumbline"
PROFILES = tuple(sorted(path.name.removesuffix("-values.yaml") for path in (FOLDER / "ci").glob("*-values.yaml")))

Object = dict[str, Any]


@dataclass(frozen=True)
class Release:
    """What ``helm install plumbline … --namespace ml`` would send."""

    values: Mapping[str, Any]
    name: str = "plumbline"

    @cached_property
    def files(self) -> dict[str, str]:
        rendered: dict[str, str] = Chart.load(str(FOLDER)).render(dict(self.values), name=self.name, namespace="ml")
        return rendered

    @cached_property
    def objects(self) -> list[Object]:
        return [
            one
            for path, text in self.files.items()
            if not path.endswith("NOTES.txt")
            for one in yaml.safe_load_all(text)
            if one
        ]

    @property
    def notes(self) -> str:
        return next(text for path, text in self.files.items() if path.endswith("NOTES.txt"))

    def all(self, kind: str) -> list[Object]:
        return [one for one in self.objects if one["kind"] == kind]

    def get(self, kind: str, name: str) -> Object:
        (found,) = [one for one in self.all(kind) if one["metadata"]["name"] == f"{self.name}-{name}"]
        return found

    @property
    def job(self) -> Object | None:
        """The Job that the monitor is given to make others from."""
        found = [one for one in self.all("ConfigMap") if "job.json" in one["data"]]
        return orjson.loads(found[0]["data"]["job.json"]) if found else None

    def pods(self) -> Iterator[tuple[str, Object, Object]]:
        """(what it is, metadata, spec) of every pod, that of a future Job and of the test, too."""
        for one in self.all("Deployment"):
            yield one["metadata"]["name"], one["spec"]["template"]["metadata"], one["spec"]["template"]["spec"]
        for one in self.all("Pod"):
            yield one["metadata"]["name"], one["metadata"], one["spec"]
        if self.job is not None:
            template = self.job["spec"]["template"]
            yield "job", template["metadata"], template["spec"]

    def labels(self) -> dict[str, dict[str, str]]:
        """The labels of each pod by what it is."""
        return {name: metadata["labels"] for name, metadata, _ in self.pods()}

    def selected(self, labels: Mapping[str, str]) -> list[str]:
        return [name for name, found in self.labels().items() if labels.items() <= found.items()]


def profile(name: str) -> Release:
    return Release(yaml.safe_load((FOLDER / "ci" / f"{name}-values.yaml").read_text()) or {})


def containers(spec: Object) -> list[Object]:
    return [*spec.get("initContainers", []), *spec["containers"]]


def restricted(spec: Object) -> list[str]:
    """What the Pod Security Standard *restricted* (Kubernetes 1.31) has against a pod."""
    pod = spec.get("securityContext", {})
    against = [name for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)]
    allowed = {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
    for volume in spec.get("volumes", []):
        against += [f"volume {volume['name']} of type {kind}" for kind in volume.keys() - {"name"} - allowed]
    for container in containers(spec):
        own = container.get("securityContext", {})
        merged = {**pod, **own}
        capabilities = own.get("capabilities", {})
        problems = {
            "privileged": own.get("privileged", False),
            "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is not False,
            "capabilities": "ALL" not in capabilities.get("drop", []),
            "added capabilities": set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"},
            "runAsNonRoot": merged.get("runAsNonRoot") is not True,
            "runAsUser": merged.get("runAsUser") == 0,
            "seccompProfile": merged.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"),
            "hostPort": any(port.get("hostPort") for port in container.get("ports", [])),
            "procMount": own.get("procMount", "Default") != "Default",
        }
        against += [f"{container['name']}: {name}" for name, wrong in problems.items() if wrong]
    return against


# What their operators' CRDs ask of the fields that the chart uses.
_LABELS = {"type": "object", "additionalProperties": {"type": "string"}}
_DURATION = {"type": "string", "pattern": r"^([0-9]+(ms|s|m|h|d))+$"}


def _strict(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required, "additionalProperties": False, "properties": properties}


SPECS: dict[str, dict[str, Any]] = {
    "ServiceMonitor": _strict(
        ["selector", "endpoints"],
        selector=_strict(["matchLabels"], matchLabels=_LABELS),
        endpoints={
            "type": "array",
            "items": _strict(
                ["port"],
                port={"type": "string"},
                path={"type": "string"},
                interval=_DURATION,
                relabelings={
                    "type": "array",
                    "items": _strict([], targetLabel={"type": "string"}, replacement={"type": "string"}),
                },
            ),
        },
    ),
    "PrometheusRule": _strict(
        ["groups"],
        groups={
            "type": "array",
            "minItems": 1,
            "items": _strict(
                ["name", "rules"],
                name={"type": "string"},
                rules={
                    "type": "array",
                    "items": _strict(
                        ["expr"],
                        expr={"type": "string"},
                        record={"type": "string"},
                        alert={"type": "string"},
                        labels=_LABELS,
                        annotations=_LABELS,
                        **{"for": _DURATION, "keep_firing_for": _DURATION},
                    ),
                },
            ),
        },
    ),
    "ScaledObject": _strict(
        ["scaleTargetRef", "triggers"],
        scaleTargetRef=_strict(["name"], name={"type": "string"}),
        minReplicaCount={"type": "integer", "minimum": 0},
        maxReplicaCount={"type": "integer", "minimum": 1},
        fallback=_strict(
            ["failureThreshold", "replicas"], failureThreshold={"type": "integer"}, replicas={"type": "integer"}
        ),
        triggers={
            "type": "array",
            "items": _strict(["type", "metadata"], type={"const": "prometheus"}, metadata=_LABELS),
        },
    ),
    "HTTPRoute": _strict(
        ["parentRefs", "rules"],
        parentRefs={"type": "array", "items": _strict(["name"], name={"type": "string"}, namespace={"type": "string"})},
        hostnames={"type": "array", "items": {"type": "string"}},
        rules={
            "type": "array",
            "items": _strict(
                ["backendRefs"],
                backendRefs={
                    "type": "array",
                    "items": _strict(["name", "port"], name={"type": "string"}, port={"type": "integer"}),
                },
            ),
        },
    ),
}
