"""``GET /``: one page for people, without scripts: what is live, how it does, where to look next."""

from __future__ import annotations

import asyncio
import html
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import HTMLResponse

from service import __version__
from service.contract.errors import InvalidInput
from service.contract.events import DriftData
from service.contract.last_window import read_last_window
from service.fleet import Fleet
from service.live import LiveModel
from service.predictor import Predictor
from service.protocols import predictor
from service.repository import RepositoryWatcher
from service.settings import ServiceSettings

router = APIRouter(tags=["operations"])

_PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="15"><title>Plumbline</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 48rem; margin: 1.5rem auto; padding: 0 1rem; color: #1a1a1a }
h1 { font-size: 1.4rem } h2 { font-size: 1.15rem; margin-top: 2rem }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: 0 }
dt { color: #666 } dd { margin: 0; overflow-wrap: anywhere }
.bar { background: #4a7dbd; height: .8rem; min-width: 1px } .mix { display: grid;
grid-template-columns: minmax(4rem, max-content) 1fr 3.5rem; gap: .3rem 1rem; align-items: center; margin-top: .6rem }
.bad { color: #b00020; font-weight: 600 } code { font-size: .9em }
@media (prefers-color-scheme: dark) { body { background: #161616; color: #ddd } dt { color: #999 }
.bad { color: #ff7a8a } a { color: #8ab4f8 } }
</style></head><body>
<h1>Plumbline <small>$version</small></h1>
<p>$state</p>
$models
<p><a href="docs">Interface</a> · <a href="metrics">Metrics</a> · <a href="readyz">Readiness</a></p>
</body></html>
""")


@router.get("/", response_class=HTMLResponse)
async def status(request: Request, predictor: Annotated[Predictor, Depends(predictor)]) -> Response:
    """The page; it renders while models are still loading, too."""
    if request.app.state.stopping:
        state = "<span class='bad'>stopping</span>"
    elif not predictor.started:
        state = "<span class='bad'>loading models</span>"
    else:
        state = "ready" if predictor.models else "<span class='bad'>every model was unloaded</span>"
    if failing := predictor.log_failing:
        state += f"; <span class='bad'>the log fails: {html.escape(failing)}</span>"
    watcher: RepositoryWatcher = request.app.state.watcher
    for name, why in watcher.refused().items():
        state += f"; <span class='bad'>{html.escape(name)}: {html.escape(why)}</span>"
    fleet: Fleet = request.app.state.fleet
    if fleet.size > 1:
        state += f"; worker {fleet.index} of {fleet.size}, whose queue, answer times and labels these are"
    settings: ServiceSettings = request.app.state.settings
    windows = await asyncio.to_thread(_windows, settings.log, list(predictor.models))
    models = "\n".join(_model(live, predictor, windows.get(name, "")) for name, live in predictor.models.items())
    page = _PAGE.substitute(version=html.escape(__version__), state=state, models=models)
    return HTMLResponse(page)


def _windows(log: Path | None, models: Sequence[str]) -> dict[str, str]:
    """The newest drift window of each model in words, as HTML."""
    shown = {}
    for model in models:
        try:
            window = read_last_window(log, model) if log is not None else None
        except InvalidInput:  # the message has paths, and the page asks for no key
            shown[model] = "<span class='bad'>what the monitor left in the log cannot be read</span>"
        else:
            shown[model] = "none judged yet" if window is None else _window(window)
    return shown


def _window(data: DriftData) -> str:
    drifted = ", ".join(signal.name for signal in data.signals if signal.drifted)
    verdict = "no drift" if data.severity == "none" else f"{data.severity}: {drifted}"
    verdict = f"<span class='bad'>{html.escape(verdict)}</span>" if data.severity == "alert" else html.escape(verdict)
    if data.report is not None and data.report.startswith(("http://", "https://")):
        verdict += f" (<a href='{html.escape(data.report)}'>report</a>)"
    return (
        f"{verdict}; {data.window.rows} answers of version {html.escape(data.model.version)} "
        f"until {data.window.end:%Y-%m-%d %H:%M} UTC"
    )


def _model(live: LiveModel, predictor: Predictor, window: str) -> str:
    manifest = live.manifest
    recent = list(predictor.recent(manifest.name))
    precision = manifest.variants[live.variant].precision
    provider = f"{live.provider}, {precision}"
    rows = {
        "version": manifest.version,
        "digest": f"<code>{live.bundle.digest[:16]}…</code>",
        "runs on": f"<span class='bad'>{provider}: fell back from the GPU; the log says why</span>"
        if live.fallback
        else provider,
        "waiting": f"{live.batcher.tokens} tokens",
        "answer times": _times([one.milliseconds for one in recent]),
        "export gate": _gate(live),
        "drift": window,
        **_candidates(predictor, manifest.name),
    }
    facts = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in rows.items())
    return f"<h2>{html.escape(manifest.name)}</h2>\n<dl>{facts}</dl>\n{_mix([one.label for one in recent])}"


def _gate(live: LiveModel) -> str:
    quality = live.manifest.quality.get(live.variant)
    if quality is None:
        return "not judged"
    mark = "<span class='bad'>unproven</span>, " if live.manifest.unproven else ""
    return f"{mark}{quality.verdict}, {quality.metric} {quality.exported:.3f}"


def _candidates(predictor: Predictor, model: str) -> dict[str, str]:
    rows = {}
    if (canary := predictor.rollout.canaries.get(model)) is not None:
        rows["canary"] = f"version {canary.model.manifest.version}, {canary.weight:.1%} of the requests"
    if (shadow := predictor.rollout.shadows.get(model)) is not None:
        rows["shadow"] = f"version {shadow.model.manifest.version}"
    return rows


def _times(milliseconds: list[float]) -> str:
    if not milliseconds:
        return "nothing answered yet"
    p50, p99 = np.percentile(milliseconds, [50, 99])
    return f"p50 {p50:.1f} ms, p99 {p99:.1f} ms over the last {len(milliseconds)}"


def _mix(labels: list[str]) -> str:
    if not labels:
        return ""
    rows = [
        f"<span>{html.escape(label or '(none)')}</span>"
        f"<div class='bar' style='width:{100 * count / len(labels):.1f}%'></div>"
        f"<span>{count / len(labels):.0%}</span>"
        for label, count in Counter(labels).most_common(10)
    ]
    return f"<div class='mix'>{''.join(rows)}</div>"
