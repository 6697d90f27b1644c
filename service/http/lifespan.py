"""What runs beside the requests: the log, its copies, the watch over the repository, answers to other workers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI

from service.contract.errors import PlumblineError
from service.contract.redact import Redactor
from service.contract.repository import first_model
from service.http.state import ServerState
from service.log.recorder import Recorder, as_logged
from service.log.upload import Uploader, UploadTarget
from service.settings import ServiceSettings
from service.telemetry.metrics import Metrics
from service.workers.metric_sums import to_plain

if TYPE_CHECKING:
    from service.http.tracing import Tracing

logger = logging.getLogger(__name__)

_LAST_UPLOADS = 10.0  # seconds at the end of the process for copying what was sealed last


@dataclass(frozen=True)
class Lifespan:
    """From before the first request until after the last one; the parameters are those of ``create_app``."""

    state: ServerState
    redact: Redactor
    upload_to: UploadTarget | None
    tracing: Tracing | None
    on_failure: Callable[[PlumblineError], None] | None
    on_ready: Callable[[], None]

    def __call__(self, api: FastAPI) -> AbstractAsyncContextManager[None]:
        return self._run(api)

    @asynccontextmanager
    async def _run(self, api: FastAPI) -> AsyncIterator[None]:
        state, settings, metrics = self.state, self.state.settings, self.state.metrics
        await asyncio.to_thread(api.openapi)  # describing all routes would hold up the first request that asks
        recorder, uploader = None, None
        if settings.log is not None:
            recorder = await asyncio.to_thread(_recorder, settings, metrics, self.redact)
            state.predictor.recorder = recorder
        if self.upload_to is not None:
            uploader = _uploader(settings, metrics, self.upload_to)
        await state.fleet.listen(self._answer)
        following = asyncio.create_task(self._follow())
        try:
            yield
        finally:
            await state.fleet.close()
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            await state.watcher.close()
            metrics.deferred.flush()
            if recorder is not None:
                await asyncio.to_thread(recorder.close)
            if uploader is not None:
                await asyncio.to_thread(uploader.close, _LAST_UPLOADS)
            if self.tracing is not None:
                await asyncio.to_thread(self.tracing.close)

    async def _follow(self) -> None:
        settings, predictor = self.state.settings, self.state.predictor
        try:
            predictor.default = settings.model or await asyncio.to_thread(first_model, settings.repo)
            await self.state.watcher.start(settings.model)
        except Exception as error:
            expected = isinstance(error, PlumblineError)
            logger.error("nothing can be served: %s", error, exc_info=None if expected else error)
            if self.on_failure is not None:
                self.on_failure(error if isinstance(error, PlumblineError) else PlumblineError(str(error)))
            return
        self.on_ready()
        await self.state.watcher.watch()

    async def _answer(self, question: str, argument: Any) -> Any:
        """What this worker says to another one."""
        state = self.state
        match question:
            case "metrics":
                return to_plain(state.metrics.registry.collect())
            case "ready":
                return state.why_not_ready() is None
            case "prediction":
                return state.predictor.remembered(argument)
            case "load":
                return await state.watcher.load(argument)
            case "unload":
                return await state.watcher.unload(argument)
        raise PlumblineError(f"a worker does not know the question {question!r}.")


def _recorder(settings: ServiceSettings, metrics: Metrics, redact: Redactor) -> Recorder:
    assert settings.log is not None
    return Recorder(
        settings.log,
        queue=settings.log_queue,
        fsync_seconds=settings.log_fsync_seconds,
        seal_seconds=settings.log_seal_seconds,
        seal_bytes=settings.log_seal_bytes,
        quota_bytes=settings.log_quota_bytes,
        sample=settings.log_sample,
        prepare=lambda record: as_logged(record, settings.log_text, redact),
        on_written=lambda model, count: metrics.records.labels(model).inc(count),
        on_left_out=lambda model: metrics.records_left_out.labels(model).inc(),
        on_dropped=lambda model, reason, count: metrics.records_dropped.labels(model, reason).inc(count),
    )


def _uploader(settings: ServiceSettings, metrics: Metrics, target: UploadTarget) -> Uploader:
    assert settings.log is not None
    return Uploader(
        settings.log,
        target,
        every=settings.log_upload_seconds,
        on_result=lambda model, worked: metrics.uploads.labels(model, "uploaded" if worked else "failed").inc(),
        on_pending=metrics.uploads_pending.set,
    )
