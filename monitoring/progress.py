"""What a running monitor tells people: what it watches, what is missing, how far the next windows are."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from monitoring.settings import MonitorSettings
from monitoring.windows.log import Pending
from service.contract.repository import model_names
from service.contract.user import care_of_root

logger = logging.getLogger(__name__)

_STEPS = 10  # lines in the log on the way to a window


def beginning(settings: MonitorSettings, address: str) -> list[str]:
    """Lines for the start: where it is, what it watches, who is told."""
    names = ", ".join(model_names(settings.repo)) or "no model yet"
    return [
        f"monitor on {address}: reports, and metrics at {address}/metrics",
        f"  watches     {settings.log_folder}, with the versions in {settings.repo} ({names})",
        f"  keeps       state and reports in {settings.state_folder}",
        f"  tells       {_receivers(settings)}",
    ]


def cares(settings: MonitorSettings) -> Iterator[str]:
    """What is missing or risky now."""
    if not model_names(settings.repo):
        what = "holds no model" if settings.repo.is_dir() else "does not exist"
        yield f"{settings.repo} {what}; waiting for `plumbline export --repo {settings.repo}`"
    if not settings.log_folder.is_dir():
        yield f"there is no log at {settings.log_folder}; waiting for `plumbline serve --log {settings.log_folder}`"
    if care := care_of_root():
        yield care
    if settings.unsigned:
        yield f"events to {', '.join(settings.unsigned)} go out unsigned (PLUMBLINE_WEBHOOK_UNSIGNED)"


def progress(waiting: Sequence[Pending], settings: MonitorSettings) -> list[str]:
    """How far each version's next window is."""
    return [
        f"{one.model} version {one.version}: {one.rows} of {settings.window_rows} rows towards the next window"
        for one in waiting
    ]


class ProgressReporter:
    """Logs progress: at first, and whenever another tenth of a window has come."""

    def __init__(self, settings: MonitorSettings) -> None:
        self._settings = settings
        self._told: dict[str, int] | None = None

    def tell(self, waiting: Sequence[Pending]) -> None:
        reached = {one.digest: one.rows * _STEPS // self._settings.window_rows for one in waiting}
        if reached == self._told:
            return
        new = [one for one in waiting if self._told is None or self._told.get(one.digest) != reached[one.digest]]
        for line in progress(new, self._settings) or (["no row waits for a window"] if self._told is None else []):
            logger.info("%s", line)
        self._told = reached


def _receivers(settings: MonitorSettings) -> str:
    receivers = [*settings.webhook_urls]
    receivers += [settings.alertmanager_url] if settings.alertmanager_url else []
    if settings.retrain_target is not None:
        kind, address = settings.retrain_target
        receivers.append("a retrain command" if kind == "retrain-command" else address)
    return ", ".join(receivers) or "nobody: set PLUMBLINE_WEBHOOK_URLS, or PLUMBLINE_RETRAIN_COMMAND"
