"""Keeps the predictor on the live version of every model in the repository.

A new version is loaded, verified, warmed and proven beside the old one; then it takes the old one's place between
two requests, and the old one is freed when its last request is answered. A version that cannot be made live is
logged and counted, and the old one stays.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from service.contract.errors import BundleError, InvalidInput, PlumblineError
from service.contract.repository import SERVING, Serving, live_names, model_names, read_serving, versions
from service.errors import UnknownModel
from service.models.candidates import Candidates
from service.models.loaded import LoadedModel
from service.models.predictor import Predictor
from service.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)


class RepositoryWatcher:
    """:param load: makes a live model of a version's folder; blocking, run on a thread.
    :param load_shadow: the same for a version that only sees copies of the traffic.
    """

    def __init__(
        self,
        root: Path,
        predictor: Predictor,
        metrics: Metrics,
        load: Callable[[Path], LoadedModel],
        load_shadow: Callable[[Path], LoadedModel],
        poll_seconds: float,
    ) -> None:
        self._root = root
        self._predictor = predictor
        self._metrics = metrics
        self._load = partial(load_version, root, load)
        self._candidates = Candidates(
            predictor.rollout, {"canary": self._load, "shadow": partial(load_version, root, load_shadow)}, metrics
        )
        self._poll_seconds = poll_seconds
        self._refused: dict[str, tuple[str, str]] = {}
        self._unloaded: set[str] = set()
        self._lock = asyncio.Lock()
        self._retiring: set[asyncio.Task[None]] = set()

    async def start(self, needed: str | None = None) -> None:
        """Load every live version once. Where one cannot be loaded, the one before it answers, if it can; loudly.

        :param needed: a model that must be live in the repository.
        :raises PlumblineError: if it is not, or nothing is live, or nothing of what is can be loaded.
        """
        live = await asyncio.to_thread(live_names, self._root)
        if needed is not None and needed not in live:
            raise InvalidInput(f"--model {needed!r} is not live in {self._root}.")
        failed: Exception | None = None
        for name in live:
            serving = None
            try:
                serving = await asyncio.to_thread(read_serving, self._root, name)
                await self._take(name, serving.live)
            except PlumblineError as error:
                failed = failed or error
                await self._fall_back(name, serving, error)
        if failed is not None and not self._predictor.models:
            raise failed
        self._predictor.started = True

    async def _fall_back(self, name: str, serving: Serving | None, error: PlumblineError) -> None:
        """Let the version answer that was live before the one that could not be loaded."""
        if serving is not None and serving.previous is not None:
            try:
                await self._take(name, serving.previous)
                logger.error("version %s of %s answers instead, which was live before", serving.previous, name)
            except PlumblineError as also:
                logger.error("version %s of %s, live before, cannot be loaded either: %s", serving.previous, name, also)
        self._refuse(name, serving.live if serving is not None else "", error)

    def refused(self) -> dict[str, str]:
        """By model that the version that should answer does not; the reasons have paths, and are in the log."""
        return {
            name: f"{f'version {version}' if version else 'what is live'} cannot be made live; the log says why"
            for name, (version, _) in self._refused.items()
        }

    async def watch(self) -> None:
        """Look at the repository for ever, whatever comes up."""
        while True:
            await asyncio.sleep(self._poll_seconds)
            try:
                await self.look()
            except Exception:
                logger.exception("the repository cannot be read")

    async def look(self) -> None:
        """Take what became live, or a candidate, since the last look."""
        for name in await asyncio.to_thread(model_names, self._root):
            if name in self._unloaded or not (self._root / name / SERVING).exists():
                continue
            version = ""
            try:
                serving = await asyncio.to_thread(read_serving, self._root, name)
                version = serving.live
                live = self._predictor.models.get(name)
                if live is not None and live.manifest.version == version:
                    self._refused.pop(name, None)
                elif self._refused.get(name, ("", ""))[0] != version:
                    await self._take(name, version)
            except Exception as error:
                self._refuse(name, version, error)
                continue
            async with self._lock:
                if name in self._predictor.models:
                    self._retire(await self._candidates.sync(name, serving))

    def _refuse(self, name: str, version: str, error: Exception) -> None:
        """Say once why a version cannot be made live; it is tried again when serving.json has said something else."""
        if self._refused.get(name) == (version, str(error)):
            return
        self._refused[name] = (version, str(error))
        self._metrics.load_failures.labels(name).inc()
        expected = isinstance(error, PlumblineError)
        what = f"version {version} of {name}" if version else f"what is live of {name}"
        logger.error("%s cannot be made live: %s", what, error, exc_info=None if expected else error)

    async def load(self, name: str) -> None:
        """Load the live version of a model, afresh if it is loaded. :raises UnknownModel: if there is none."""
        if name not in await asyncio.to_thread(model_names, self._root):
            raise UnknownModel(f"no model {name!r} in the repository.")
        version = (await asyncio.to_thread(read_serving, self._root, name)).live
        self._unloaded.discard(name)
        try:
            await self._take(name, version)
        except PlumblineError as error:
            self._refuse(name, version, error)
            raise

    async def unload(self, name: str) -> None:
        """Stop answering for a model until it is loaded again. :raises UnknownModel: if it is not loaded."""
        async with self._lock:
            live = self._predictor.models.pop(name, None)
            if live is None:
                raise UnknownModel(f"no model {name!r} is loaded.")
            self._unloaded.add(name)
            self._metrics.model_info.remove(*_info(live))
            self._metrics.queue_tokens.remove(name)
            self._metrics.queue_limit.remove(name)
            self._metrics.device_fallback.remove(name)
            self._metrics.unproven.remove(name)
            self._retire([live, *self._candidates.drop(name)])
        logger.info("version %s of %s was unloaded", live.manifest.version, name)

    async def index(self) -> list[tuple[str, str, bool, str]]:
        """(name, version, whether it answers, why not) of everything in the repository."""
        found = []
        for name in await asyncio.to_thread(model_names, self._root):
            states = self._candidates.states(name)
            if name in self._refused:
                states[self._refused[name][0]] = (False, self._refused[name][1])
            if (live := self._predictor.models.get(name)) is not None:
                states[live.manifest.version] = (True, "")
            for version in await asyncio.to_thread(versions, self._root, name):
                answers, reason = states.get(version, (False, "not live"))
                found.append((name, version, answers, "unloaded" if name in self._unloaded else reason))
        return found

    async def close(self) -> None:
        """Let every model finish what it has and free it."""
        for name in list(self._predictor.models):
            self._retire([self._predictor.models.pop(name), *self._candidates.drop(name)])
        await asyncio.gather(*self._retiring)

    async def _take(self, name: str, version: str) -> None:
        async with self._lock:
            if name in self._unloaded:  # it was unloaded while this waited for its turn
                return
            new = await asyncio.to_thread(self._load, name, version)
            old = self._predictor.models.get(name)
            self._predictor.models[name] = new
            self._refused.pop(name, None)
            if old is not None:
                self._metrics.model_info.remove(*_info(old))
                self._retire([old])
            self._metrics.model_info.labels(*_info(new)).set(1)
            self._metrics.device_fallback.labels(name).set(bool(new.fallback))
            self._metrics.unproven.labels(name).set(new.manifest.unproven)
            self._metrics.queue_tokens.labels(name).set_function(lambda: new.batcher.tokens)
            self._metrics.queue_limit.labels(name).set(new.batcher.queue_tokens)
        logger.info("version %s of %s is live on %s, digest %s", version, name, new.provider, new.bundle.digest[:12])

    def _retire(self, models: Iterable[LoadedModel]) -> None:
        for model in models:
            task = asyncio.create_task(model.retire())
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)


def load_version(root: Path, load: Callable[[Path], LoadedModel], name: str, version: str) -> LoadedModel:
    """Load a version that is what its folder says. :raises PlumblineError: if it cannot be served."""
    model = load(root / name / version)
    if model.manifest.name != name or model.manifest.version != version:
        raise BundleError(
            f"{root / name / version} says that it is version {model.manifest.version} of "
            f"{model.manifest.name!r}. Publish with `plumbline export`, do not copy folders."
        )
    return model


def _info(live: LoadedModel) -> tuple[str, str, str, str, str]:
    manifest = live.manifest
    precision = manifest.variants[live.variant].precision
    return manifest.name, manifest.version, live.bundle.digest, precision, live.provider
