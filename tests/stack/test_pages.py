"""Every page in Chromium, as people see it: on a phone and on a desk, in the light and in the dark, with no network."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import httpx
import pytest

from export.card.html import as_html
from monitoring.metrics import Metrics
from monitoring.pages.overview import overview
from monitoring.pages.server import serve_pages
from monitoring.pages.timeline import timeline
from monitoring.rounds import Rounds
from monitoring.state import StateStore
from service.card.content import card_of
from tests.fakes import make_bundle
from tests.manifests import manifest
from tests.monitoring.world import DRIFTED, START, World
from tests.processes import free_port, plumbline, running

pytestmark = [pytest.mark.platform]
CHROMIUM = shutil.which("chromium")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The address of each page, of a server that has answered and a monitor that found drift."""
    folder = tmp_path_factory.mktemp("pages")
    make_bundle(folder / "models")
    card = folder / "models" / "reviews" / "1" / "report.html"
    card.write_text(as_html(card_of(manifest()), manifest()))
    world = World(folder / "world")
    bundle = world.publish()
    world.write_log(bundle, 200)
    world.write_log(bundle, 200, DRIFTED, sequence=2)
    settings = world.settings(reports_kept=5)
    store = StateStore(settings.state_folder)
    Rounds(settings, store, Metrics(), clock=lambda: START.timestamp() + 600).run()
    store.close()
    reports = settings.state_folder / "reports"
    newest = max(path.name for path in reports.glob("tickets/*.html"))
    server = f"http://127.0.0.1:{(port := free_port())}"
    command = plumbline("serve", "--repo", folder / "models", "--log", folder / "log", "--port", str(port))
    with (
        running(command, ready=f"{server}/readyz"),
        serve_pages(
            "127.0.0.1",
            0,
            Metrics(),
            reports,
            lambda: True,
            lambda: ["`--user 10001` is better"],
            lambda: overview(settings.state_folder, reports),
            lambda model: timeline(settings.state_folder, reports, model),
        ) as monitor,
    ):
        httpx.post(f"{server}/predict", json={"inputs": ["good", "bad", "a great film"]})
        yield {
            "status": f"{server}/",
            "interface": f"{server}/docs",
            "card": f"{server}/models/reviews/report",
            "monitor": f"{monitor}/",
            "timeline": f"{monitor}/models/tickets",
            "reports": f"{monitor}/reports/",
            "report": f"{monitor}/reports/tickets/{newest}",
        }


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_every_page_fits_is_named_and_asks_no_other_host(pages: dict[str, str], width: int, scheme: str) -> None:
    from playwright.sync_api import sync_playwright

    options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
        for name, address in pages.items():
            asked: list[str] = []
            tab = context.new_page()
            tab.on("request", lambda request, asked=asked: asked.append(request.url))  # type: ignore[misc]
            faults: list[str] = []
            tab.on("pageerror", lambda error, faults=faults: faults.append(str(error)))  # type: ignore[misc]
            tab.goto(address, wait_until="load")
            assert tab.evaluate("document.documentElement.scrollWidth") <= width, name
            assert tab.title(), name
            assert tab.locator("h1").count() == 1, name
            assert faults == [], name
            assert [url for url in asked if not url.startswith(("data:", "about:", address.rpartition("/")[0]))] == []
            background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (background == "rgb(255, 255, 255)") == (scheme == "light"), name
            tab.close()
        browser.close()


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_text_is_tried_by_keyboard_alone(pages: dict[str, str]) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_context(java_script_enabled=False).new_page()
        tab.goto(pages["status"])
        for _ in range(20):
            tab.keyboard.press("Tab")
            if tab.locator("input[name=text]:focus").count():
                break
        tab.keyboard.type("a good film")
        tab.keyboard.press("Enter")
        tab.wait_for_url("**/try")
        assert "positive" in tab.inner_text("main")
        browser.close()
