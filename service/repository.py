"""Keeps the predictor on the live version of every model in the repository.

A new version is loaded, verified, warmed and proven beside the old one; then it takes the old one's place between
two requests, and the old one is freed when its last request is answered. A version that cannot be made live is
logged and counted, and the old one stays.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from service.contract.errors import BundleError, PlumblineError
from service.contract.repository import SERVING, model_names, read_serving, versions
from service.errors import UnknownModel
from service.live import LiveModel
from service.metrics import Metrics
from service.predictor import Predictor

logger = logging.getLogger(__name__)


class RepositoryWatcher:
    """:param load: makes a live model of a version's folder; blocking, run on a thread."""

    def __init__(
        self, root: Path, predictor: Predictor, metrics: Metrics, load: Callable[[Path], LiveModel], poll_seconds: float
    ) -> None:
        self._root = root
        self._predictor = predictor
        self._metrics = metrics
        self._load = load
        self._poll_seconds = poll_seconds
        self._refused: dict[str, tuple[str, str]] = {}
        self._unloaded: set[str] = set()
        self._lock = asyncio.Lock()
        self._retiring: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Load every live version once.

        :raises PlumblineError: if nothing is live, or something that is cannot be loaded.
        """
        names = await asyncio.to_thread(model_names, self._root)
        if not names:
            raise BundleError(f"{self._root} holds no model. Export one with `plumbline export`.")
        live = [name for name in names if (self._root / name / SERVING).exists()]
        if not live:
            raise BundleError(f"{self._root} holds versions of {', '.join(names)}, and none is live.")
        for name in live:
            await self._take(name, (await asyncio.to_thread(read_serving, self._root, name)).live)
        self._predictor.started = True

    async def follow(self) -> None:
        """Look at the repository for ever, whatever comes up."""
        while True:
            await asyncio.sleep(self._poll_seconds)
            try:
                await self.look()
            except Exception:
                logger.exception("the repository cannot be read")

    async def look(self) -> None:
        """Take what became live since the last look."""
        for name in await asyncio.to_thread(model_names, self._root):
            if name in self._unloaded or not (self._root / name / SERVING).exists():
                continue
            version = ""
            try:
                version = (await asyncio.to_thread(read_serving, self._root, name)).live
                live = self._predictor.models.get(name)
                if live is not None and live.manifest.version == version:
                    self._refused.pop(name, None)
                elif self._refused.get(name, ("", ""))[0] != version:
                    await self._take(name, version)
            except Exception as error:
                self._refuse(name, version, error)

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
            self._retire(live)
        logger.info("version %s of %s was unloaded", live.manifest.version, name)

    async def index(self) -> list[tuple[str, str, bool, str]]:
        """(name, version, whether it answers, why not) of everything in the repository."""
        found = []
        for name in await asyncio.to_thread(model_names, self._root):
            live = self._predictor.models.get(name)
            refused, why = self._refused.get(name, ("", ""))
            for version in await asyncio.to_thread(versions, self._root, name):
                answers = live is not None and live.manifest.version == version
                reason = "" if answers else why if version == refused else "not live"
                found.append((name, version, answers, "unloaded" if name in self._unloaded else reason))
        return found

    async def close(self) -> None:
        """Let every model finish what it has and free it."""
        for name in list(self._predictor.models):
            await self._predictor.models.pop(name).retire()
        await asyncio.gather(*self._retiring)

    async def _take(self, name: str, version: str) -> None:
        async with self._lock:
            if name in self._unloaded:  # it was unloaded while this waited for its turn
                return
            new = await asyncio.to_thread(self._load, self._root / name / version)
            if new.manifest.name != name or new.manifest.version != version:
                raise BundleError(
                    f"{self._root / name / version} says that it is version {new.manifest.version} of "
                    f"{new.manifest.name!r}. Publish with `plumbline export`, do not copy folders."
                )
            old = self._predictor.models.get(name)
            self._predictor.models[name] = new
            self._refused.pop(name, None)
            if old is not None:
                self._metrics.model_info.remove(*_info(old))
                self._retire(old)
            self._metrics.model_info.labels(*_info(new)).set(1)
            self._metrics.queue_tokens.labels(name).set_function(lambda: new.batcher.tokens)
        logger.info("version %s of %s is live on %s, digest %s", version, name, new.provider, new.bundle.digest[:12])

    def _retire(self, live: LiveModel) -> None:
        task = asyncio.create_task(live.retire())
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)


def _info(live: LiveModel) -> tuple[str, str, str, str, str]:
    manifest = live.manifest
    precision = manifest.variants[live.variant].precision
    return manifest.name, manifest.version, live.bundle.digest, precision, live.provider
