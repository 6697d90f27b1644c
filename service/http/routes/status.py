"""``GET /``: one page for people, without scripts: what is live, how it does, where to look next, a text to try."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import parse_qs, quote

import numpy as np
from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from service import __version__
from service.card.page import badge, facts, figures, page, shares, verdict
from service.contract.errors import InvalidInput
from service.contract.events import DriftData
from service.contract.inputs import input_of, parts
from service.contract.last_window import read_last_window
from service.errors import InvalidRequest, RequestError, UnknownModel
from service.http.requests import within
from service.http.route_table import Policy, policy
from service.http.routes.entities import found_entities
from service.http.state import Server, ServerState
from service.models.loaded import LoadedModel
from service.models.predictor import Answer, Predictor, Recent
from service.telemetry.context import body_of

router = APIRouter(tags=["operations"])

_SHOWN = 10  # labels
_CARD = "report.html"


@router.get("/", response_class=HTMLResponse)
@policy(Policy(access="open"))
async def status(request: Request, server: Server) -> Response:
    """The status page; it renders while models are still loading, too."""
    return HTMLResponse(await _page(server, refresh=15))


@router.post("/try", response_class=HTMLResponse, include_in_schema=False)
async def attempt(request: Request, server: Server) -> Response:
    """What the form of the status page sends: a text, and the model that is to answer it."""
    try:
        sent = parse_qs(body_of(request.scope).decode(), keep_blank_values=True, max_num_fields=3)
        (text,), (model,) = sent["text"], sent["model"]
        (second,) = sent.get("text_pair", [None])
        if sent.keys() - {"text", "model", "text_pair"}:
            raise ValueError("another field")
    except (ValueError, KeyError) as error:
        raise InvalidRequest("the form has the fields text and model, and text_pair where pairs are read.") from error
    given = input_of(text, second)
    try:
        predictor = server.predictor
        answer = await predictor.predict(predictor.who_answers(model), [given], within(request))
        said = _said(answer)
    except RequestError as error:
        said = f'<p class="bad-text">{escape(str(error))}</p>'
    quotes = (f"<blockquote>{escape(one[:500]) or '(an empty text)'}</blockquote>" for one in parts(given))
    tried = {model: f"{''.join(quotes)}{said}"}
    return HTMLResponse(await _page(server, tried))


def _said(answer: Answer) -> str:
    """The most probable labels with their shares, or the number."""
    (given,) = answer.predictions
    if answer.task.per_token:
        return _marked(answer)
    if answer.task.vector:
        first = ", ".join(f"{value:.3f}" for value in answer.logits()[0, :_SHOWN].tolist())
        return f"<p>{answer.task.settings['dimensions']} numbers: {first}, …</p>"
    if not answer.task.categorical:
        return f"<p>{escape(answer.manifest.labels[0])}: <b>{escape(given.label)}</b></p>"
    ranked = sorted(zip(given.probs, answer.manifest.labels, strict=True), reverse=True)
    return shares((label, prob) for prob, label in ranked[:_SHOWN])


def _marked(answer: Answer) -> str:
    """The entities in their text, each with what it is."""
    (found,), (text,) = found_entities(answer), answer.texts
    shown, at = "", 0
    for one in found:
        shown += f"{escape(str(text)[at : one['start']])}<mark title='{one['score']:.3f}'>{escape(one['word'])} "
        shown += f"<small>{escape(one['entity_group'])}</small></mark>"
        at = one["end"]
    return f"<p>{shown}{escape(str(text)[at:])}</p>" if found else "<p>No entity was found.</p>"


@router.get("/models/{name}/report", response_class=Response, responses={200: {"content": {"text/html": {}}}})
async def report(name: str, server: Server) -> Response:
    """The export report of the live version: what was done to the model, how good it is, where it is wrong."""
    path = server.predictor.model(name).bundle.path / _CARD
    try:
        content = await asyncio.to_thread(path.read_bytes)
    except FileNotFoundError as error:
        raise UnknownModel(f"the live version of {name!r} has no report.") from error
    return HTMLResponse(content)


async def _page(server: ServerState, tried: dict[str, str] | None = None, refresh: int | None = None) -> str:
    settings, predictor = server.settings, server.predictor
    windows = await asyncio.to_thread(_windows, settings.log, list(predictor.models))
    keyless = not (settings.api_keys or settings.admin_keys)
    body = [_state(server)]
    for name, live in predictor.models.items():
        body.append(_model(live, predictor, windows.get(name), keyless=keyless))
        if keyless:
            body.append(_form(live, (tried or {}).get(name, "")))
    links = [("Interface", "docs"), ("Metrics", "metrics"), ("Readiness", "readyz")]
    if settings.monitor_url:
        links.insert(0, ("Monitor", settings.monitor_url))
    heading = f"Status <small class='note'>Plumbline {escape(__version__)}</small>"
    return page("Plumbline: status", body, heading=heading, links=links, refresh=refresh)


def _state(server: ServerState) -> str:
    """What can be said of the server as a whole."""
    predictor, fleet = server.predictor, server.fleet
    if server.stopping:
        shown = [badge("stopping", "bad")]
    elif not predictor.started:
        shown = [badge("loading models", "warn")]
    else:
        shown = [badge("ready", "good") if predictor.models else badge("every model was unloaded", "bad")]
    if failing := predictor.log_failing:
        shown.append(badge("the log fails", "bad") + f" {escape(failing)}")
    shown += [badge(name, "bad") + f" {escape(why)}" for name, why in server.watcher.refused().items()]
    if fleet.size > 1:
        shown.append(f"worker {fleet.index} of {fleet.size}, whose queue, answer times and labels these are")
    return "".join(f"<p>{one}</p>" for one in shown)


def _windows(log: Path | None, models: Sequence[str]) -> dict[str, DriftData | str | None]:
    """The newest drift window of each model; words where it cannot be read."""
    shown: dict[str, DriftData | str | None] = {}
    for model in models:
        try:
            shown[model] = read_last_window(log, model) if log is not None else None
        except InvalidInput:  # the message has paths, and the page asks for no key
            shown[model] = "what the monitor left in the log cannot be read"
    return shown


def _model(live: LoadedModel, predictor: Predictor, window: DriftData | str | None, *, keyless: bool) -> str:
    manifest = live.manifest
    name = manifest.name
    recent = list(predictor.recent(name))
    precision = manifest.variants[live.variant].precision
    badges = [badge(f"version {manifest.version} live")]
    if manifest.unproven:
        badges.append(badge("unproven", "warn"))
    if live.fallback:
        badges.append(badge("fell back from the GPU", "bad"))
    if isinstance(window, DriftData):
        badges.append(verdict(window.severity))
    rows = [
        ("digest", f"<code>{live.bundle.digest[:16]}…</code>"),
        ("runs on", escape(f"{live.provider}, {precision}")),
        ("waiting", f"{live.batcher.tokens} of {live.batcher.queue_tokens} tokens"),
        ("export gate", escape(_gate(live))),
        ("drift", _drift(window)),
        *_candidates(predictor, name),
    ]
    if keyless:
        rows.append(("export report", f'<a href="models/{quote(name)}/report">card of version {manifest.version}</a>'))
    mix = _mix(live, recent)
    labels = f"<h3>Labels of the last {len(recent)} answers</h3>" if mix else ""
    return (
        f"<section><h2>{escape(name)} {' '.join(badges)}</h2>{figures(_figures(live, recent, window))}"
        f"{facts(rows)}{labels}{shares((label, count / len(recent)) for label, count in mix) if mix else ''}</section>"
    )


def _mix(live: LoadedModel, recent: Sequence[Recent]) -> list[tuple[str, int]]:
    """The most frequent labels, or sets of them; nothing of numbers."""
    if not live.task.categorical:
        return []
    return Counter(live.task.as_labels(one.label) or "(none)" for one in recent).most_common(_SHOWN)


def _figures(live: LoadedModel, recent: Sequence[Recent], window: DriftData | str | None) -> list[tuple[str, str]]:
    shown = []
    if (quality := live.manifest.quality.get(live.variant)) is not None:
        shown.append((f"{quality.exported:.3f}", f"{quality.metric} measured at export, on {quality.rows} rows"))
    if isinstance(window, DriftData) and window.accuracy_estimated is not None and window.accuracy_trusted:
        shown.append((f"{window.accuracy_estimated:.3f}", "accuracy expected in the last drift window"))
    times = [one.milliseconds for one in recent]
    if times:
        p50, p99 = np.percentile(times, [50, 99])
        shown.append((f"{p50:.1f} ms", f"median time of the last {len(times)} answers"))
        shown.append((f"{p99:.1f} ms", "99th percentile"))
    else:
        shown.append(("–", "nothing answered yet"))
    return shown


def _gate(live: LoadedModel) -> str:
    quality = live.manifest.quality.get(live.variant)
    if quality is None:
        return "not judged"
    return f"{quality.verdict}: {quality.difference:+.2f} points, at least {quality.lower_bound:+.2f}"


def _drift(window: DriftData | str | None) -> str:
    if not isinstance(window, DriftData):
        return f'<span class="bad-text">{escape(window)}</span>' if window else "none judged yet"
    drifted = ", ".join(signal.name for signal in window.signals if signal.drifted)
    said = escape("no drift" if window.severity == "none" else f"{window.severity}: {drifted}")
    if window.severity != "none" and window.reason:
        said += escape(f"; {window.reason}")
    if window.report is not None and window.report.startswith(("http://", "https://")):
        said += f' (<a href="{escape(window.report)}">report</a>)'
    return (
        f"{said}; {window.window.rows} answers of version {escape(window.model.version)} "
        f"until {window.window.end:%Y-%m-%d %H:%M} UTC"
    )


def _candidates(predictor: Predictor, model: str) -> list[tuple[str, str]]:
    rows = []
    if (canary := predictor.rollout.canaries.get(model)) is not None:
        rows.append(("canary", f"version {canary.model.manifest.version}, {canary.weight:.1%} of the requests"))
    if (shadow := predictor.rollout.shadows.get(model)) is not None:
        rows.append(("shadow", f"version {shadow.model.manifest.version}"))
    return rows


def _form(live: LoadedModel, tried: str) -> str:
    model, paired = escape(live.manifest.name), live.manifest.paired
    second = (
        f'<label for="pair-{model}">and the second one</label><input id="pair-{model}" name="text_pair" '
        'autocomplete="off">'
        if paired
        else ""
    )
    return (
        f'<form method="post" action="try" accept-charset="utf-8"><label for="text-{model}">Try a '
        f"{'pair of texts' if paired else 'text'}; it is answered and logged as any other</label>"
        f'<input id="text-{model}" name="text" required autocomplete="off">{second}'
        f'<input type="hidden" name="model" value="{model}"><button>Classify</button></form>{tried}'
    )
