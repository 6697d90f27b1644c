"""The manifest of the Kubernetes Job that retrains."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

_LONGEST_NAME = 52  # of a Job, since its pods' names are longer


def read_job(path: Path) -> dict[str, Any]:
    """The manifest of a Job, in YAML or JSON. :raises ValueError: saying what is wrong with the file."""
    import yaml  # with the extra `monitor` only; settings are read without it, too

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"the file cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise ValueError(f"the file is neither YAML nor JSON: {' '.join(str(error).split())[:200]}") from error
    kind = (found.get("apiVersion"), found.get("kind")) if isinstance(found, dict) else None
    if kind != ("batch/v1", "Job"):
        raise ValueError("give the manifest of one Job: apiVersion batch/v1, kind Job")
    if not _containers(found):
        raise ValueError("the Job has no spec.template.spec.containers")
    return dict(found)


def _containers(job: Mapping[str, Any]) -> list[dict[str, Any]]:
    spec = job
    for part in ("spec", "template", "spec"):
        spec = spec.get(part) or {}
    found: list[dict[str, Any]] = [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]
    return found if spec.get("containers") else []


def job_for(template: Mapping[str, Any], event: str, model: str, body: bytes) -> dict[str, Any]:
    """The Job of an event: the template under a name of its own, with the event in each container's environment."""
    job: dict[str, Any] = orjson.loads(orjson.dumps(template))
    metadata = job.setdefault("metadata", {})
    digest = hashlib.sha256(event.encode()).hexdigest()[:10]
    called = str(metadata.pop("generateName", "") or metadata.get("name") or "retrain")
    prefix = re.sub(r"[^a-z0-9-]+", "-", called.lower())
    metadata["name"] = f"{prefix.strip('-')[: _LONGEST_NAME - 11].strip('-')}-{digest}"
    metadata.setdefault("annotations", {})["plumbline/event"] = event
    given = {
        "PLUMBLINE_EVENT": body.decode(),
        "PLUMBLINE_EVENT_ID": event,
        "PLUMBLINE_MODEL": model,
    }
    for container in _containers(job):
        others = [one for one in container.get("env") or [] if one.get("name") not in given]
        container["env"] = [*others, *({"name": name, "value": value} for name, value in given.items())]
    return job
