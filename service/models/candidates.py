"""Keeps the rollout on the canary and the shadow that serving.json names.

A candidate goes the way of a live version: loaded, verified, warmed and proven beside what answers. One that fails is
refused with the reason, and the live version answers everything.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from service.contract.errors import PlumblineError
from service.contract.repository import Serving
from service.models.loaded import LoadedModel
from service.models.rollout import ROLES, Canary, Role, Rollout, Shadow
from service.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

Load = Callable[[str, str], LoadedModel]  # name and version


class Candidates:
    """:param load: what makes a model for each role; blocking, run on a thread."""

    def __init__(self, rollout: Rollout, load: dict[Role, Load], metrics: Metrics) -> None:
        self.rollout = rollout
        self._load = load
        self._metrics = metrics
        self._held: dict[tuple[str, Role], LoadedModel] = {}
        self._refused: dict[tuple[str, Role], tuple[str, str]] = {}

    async def sync(self, name: str, serving: Serving) -> list[LoadedModel]:
        """Hold what serving.json names; returns the models that are to be retired. Raises nothing expected."""
        canary = serving.canary
        left = await self._hold(name, "canary", canary.version if canary else None, serving.live)
        left += await self._hold(name, "shadow", serving.shadow, serving.live)
        if canary is not None and (model := self._held.get((name, "canary"))) is not None:
            self.rollout.canaries[name] = Canary(model, canary.weight)
            self._metrics.candidate_share.labels(name, "canary", canary.version).set(canary.weight)
        return left

    def drop(self, name: str) -> list[LoadedModel]:
        """Hold nothing for a model; returns the models that are to be retired."""
        return [model for role in ROLES for model in self._release(name, role)]

    def states(self, name: str) -> dict[str, tuple[bool, str]]:
        """Of each candidate's version: whether it answers, and what it is or why it was refused."""
        found = {}
        for role in ROLES:
            if refused := self._refused.get((name, role)):
                found[refused[0]] = (False, f"refused as {role}: {refused[1]}")
            if held := self._held.get((name, role)):
                found[held.manifest.version] = (role == "canary", role)
        return found

    async def _hold(self, name: str, role: Role, wanted: str | None, live: str) -> list[LoadedModel]:
        if wanted == live:
            wanted = None
        key = (name, role)
        held = self._held.get(key)
        if held is not None and held.manifest.version == wanted:
            return []
        left = self._release(name, role)
        if wanted is None:
            self._refused.pop(key, None)
        elif self._refused.get(key, ("", ""))[0] != wanted:
            await self._take(name, role, wanted)
        return left

    async def _take(self, name: str, role: Role, version: str) -> None:
        try:
            model = await asyncio.to_thread(self._load[role], name, version)
        except Exception as error:
            self._refused[name, role] = (version, str(error))
            self._metrics.load_failures.labels(name).inc()
            expected = isinstance(error, PlumblineError)
            logger.error(
                "version %s of %s cannot be the %s: %s",
                version,
                name,
                role,
                error,
                exc_info=None if expected else error,
            )
            return
        self._refused.pop((name, role), None)
        self._held[name, role] = model
        if role == "shadow":
            self.rollout.shadows[name] = Shadow(model, self._metrics)
            self._metrics.candidate_share.labels(name, role, version).set(1)
        logger.info("version %s of %s is the %s, digest %s", version, name, role, model.bundle.digest[:12])

    def _release(self, name: str, role: Role) -> list[LoadedModel]:
        model = self._held.pop((name, role), None)
        if model is None:
            return []
        (self.rollout.canaries if role == "canary" else self.rollout.shadows).pop(name, None)
        self._metrics.candidate_share.remove(name, role, model.manifest.version)
        logger.info("version %s of %s is the %s no more", model.manifest.version, name, role)
        return [model]
