"""``GET /docs``: the interface for people, made of its OpenAPI description; without scripts and without a network."""

from __future__ import annotations

import re
from functools import lru_cache
from html import escape
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from service.card.page import page, table, words
from service.http.openapi import Route, routes_of
from service.http.route_table import Policy, policy

router = APIRouter(tags=["operations"])

_TRY = """curl -s {url}predict -H 'content-type: application/json' -d '{{"inputs": "a text to classify"}}'"""


@router.get("/openapi.json", include_in_schema=False)
@policy(Policy(access="open"))
async def description(request: Request) -> Response:
    """The description itself, written once: a hundred kilobytes that anybody may ask for as often as they like."""
    return Response(_description(request.app), media_type="application/json")


@lru_cache(1)
def _description(app: Any) -> bytes:
    return orjson.dumps(app.openapi())


@router.get("/docs", response_class=HTMLResponse)
@policy(Policy(access="open"))
async def docs(request: Request) -> Response:
    """The interface for people."""
    return HTMLResponse(_page(request.app, str(request.base_url)))


@lru_cache(8)  # few, since a client chooses the host in the address
def _page(app: Any, url: str) -> str:
    routes = routes_of(app.openapi())
    body = [
        "<p>Bodies are JSON in UTF-8. Errors are <code>{&quot;error&quot;, &quot;code&quot;, &quot;error_type&quot;}"
        "</code> and say what is wrong and how to mend it.</p>",
        f"<pre>{escape(_TRY.format(url=url))}</pre>",
        _contents(routes),
    ]
    tag = ""
    for route in routes:
        if route.tag != tag:
            tag = route.tag
            body.append(f'<h2 id="{_anchor(tag)}">{escape(tag[:1].upper() + tag[1:])}</h2>')
        body.append(_section(route))
    links = [("Status", "."), ("OpenAPI", "openapi.json"), ("Metrics", "metrics")]
    return page("Plumbline: interface", body, heading="Interface", links=links)


def _contents(routes: list[Route]) -> str:
    tags = dict.fromkeys(route.tag for route in routes)
    links = "".join(f'<a href="#{_anchor(tag)}">{escape(tag)}</a>' for tag in tags)
    return f'<nav aria-label="Contents">{links}</nav>'


def _section(route: Route) -> str:
    rows = [
        (f"<code>{escape(one.name)}</code>", escape(one.where), words(one.kind), words(one.meaning))
        for one in route.fields
    ]
    fields = table(("", "where", "type", ""), rows) if rows else ""
    opened = " open" if route.path == "/predict" else ""
    return (
        f'<details{opened} id="{_anchor(f"{route.method} {route.path}")}"><summary><code>{route.method} '
        f"{escape(route.path)}</code> {words(route.meaning)}</summary>{fields}"
        f"<p>Answers {words(route.answer)}.</p></details>"
    )


def _anchor(said: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", said.lower()).strip("-")
