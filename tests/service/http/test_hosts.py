"""What a page of another site can have its visitor's browser do, which is nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

from service.contract.errors import SettingsError
from service.contract.settings import load_settings
from service.http.hosts import is_loopback
from service.http.keys import digest_of_key
from service.settings import ServiceSettings

PREDICT = '{"inputs": "a fine film"}'
WRITING = [
    ("/predict", PREDICT),
    ("/", PREDICT),
    ("/v2/models/reviews/infer", "{}"),
    ("/feedback", '{"id": "01a2c3d4-0000-7000-8000-000000000000", "label": "negative"}'),
    ("/v2/repository/index", "{}"),
    ("/v2/repository/models/reviews/load", "{}"),
    ("/v2/repository/models/reviews/unload", "{}"),
    ("/of/a/later/version", "{}"),
]
FOREIGN = ["http://evil.example", "https://localhost:81", "null", "http://[", ""]


def code(answer: object) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("origin", FOREIGN)
@pytest.mark.parametrize(("path", "body"), WRITING)
def test_without_keys_a_page_of_another_site_cannot_write(
    client: TestClient, origin: str, path: str, body: str
) -> None:
    for kind in ({}, {"content-type": "text/plain"}, {"content-type": "application/json"}):
        assert code(client.post(path, content=body, headers={"origin": origin} | kind)) == (403, "forbidden")


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_nor_can_one_whose_browser_only_says_that_it_is_of_another_site(client: TestClient, site: str) -> None:
    answer = client.post("/predict", content=PREDICT, headers={"sec-fetch-site": site})
    assert code(answer) == (403, "forbidden")


def test_this_servers_own_pages_and_programs_may(client: TestClient) -> None:
    for headers in ({}, {"origin": "http://LocalHost"}, {"sec-fetch-site": "same-origin"}):
        assert client.post("/predict", content=PREDICT, headers=headers).status_code == 200
        assert client.post("/v2/repository/models/reviews/load", headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["/", "/metrics", "/readyz", "/openapi.json", "/nothing"])
def test_on_loopback_a_name_that_somebody_else_can_have_is_refused(client: TestClient, path: str) -> None:
    """DNS rebinding: the page's own name points to this server, so that its origin is the host."""
    for host in ("evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", ""):
        assert code(client.get(path, headers={"host": host})) == (421, "unknown_host")
    assert code(client.post("/predict", content=PREDICT, headers={"host": "evil.example"})) == (421, "unknown_host")


@pytest.mark.parametrize(
    "host", ["localhost:8000", "LOCALHOST", "app.localhost", "127.0.0.1:8000", "[::1]:8000", "10.0.0.7"]
)
def test_on_loopback_addresses_and_loopback_names_are_answered(client: TestClient, host: str) -> None:
    own = {"host": host, "origin": f"http://{host}"}
    assert client.post("/predict", content=PREDICT, headers=own).status_code == 200


def test_elsewhere_programs_come_by_any_name_and_pages_by_none_that_somebody_else_can_have(
    start: Callable[..., TestClient],
) -> None:
    """Probes and scrapes ask for a pod's address, others for a service's name; no browser does without an origin."""
    client = start(host="0.0.0.0")
    for host in ("plumbline.models.svc:8000", "10.1.2.3:8000"):
        assert client.get("/readyz", headers={"host": host}).status_code == 200
        assert client.post("/predict", content=PREDICT, headers={"host": host}).status_code == 200
    rebound = {"host": "evil.example:8000", "origin": "http://evil.example:8000"}
    refused = client.post("/predict", content=PREDICT, headers=rebound)
    assert code(refused) == (403, "forbidden")
    assert "PLUMBLINE_TRUSTED_HOSTS" in refused.json()["error"]


def test_a_trusted_name_is_answered_by_and_written_from_and_others_are_not(start: Callable[..., TestClient]) -> None:
    client = start(host="0.0.0.0", trusted_hosts=("models.example",))
    assert client.get("/readyz", headers={"host": "Models.Example.:8000"}).status_code == 200
    assert client.get("/readyz", headers={"host": "10.1.2.3:8000"}).status_code == 200
    assert code(client.get("/readyz", headers={"host": "evil.example"})) == (421, "unknown_host")
    behind_a_proxy = {"host": "10.1.2.3:8000", "origin": "https://models.example"}
    assert client.post("/predict", content=PREDICT, headers=behind_a_proxy).status_code == 200


def test_any_name_may_be_trusted(start: Callable[..., TestClient]) -> None:
    client = start(trusted_hosts=("*",))
    anything = {"host": "a.example", "origin": "http://b.example"}
    assert client.post("/predict", content=PREDICT, headers=anything).status_code == 200


def test_with_keys_the_origin_does_not_matter(start: Callable[..., TestClient]) -> None:
    client = start(api_keys=digest_of_key("k"))
    headers = {"x-api-key": "k", "origin": "https://console.example"}
    assert client.post("/predict", content=PREDICT, headers=headers).status_code == 200


def test_refusals_are_counted(client: TestClient) -> None:
    client.get("/", headers={"host": "evil.example"})
    client.post("/predict", content=PREDICT, headers={"origin": "http://evil.example"})
    counted = client.get("/metrics").text
    assert 'plumbline_rejected_total{model="reviews",reason="forbidden"} 1.0' in counted
    assert 'plumbline_rejected_total{model="",reason="unknown_host"} 1.0' in counted  # the status page is of no model


def test_trusted_names_are_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLUMBLINE_TRUSTED_HOSTS", "a.example, b.example")
    assert load_settings(ServiceSettings).trusted_hosts == ("a.example", "b.example")
    monkeypatch.setenv("PLUMBLINE_TRUSTED_HOSTS", "https://a.example")
    with pytest.raises(SettingsError, match="PLUMBLINE_TRUSTED_HOSTS"):
        load_settings(ServiceSettings)


@pytest.mark.parametrize(("name", "loopback"), [("::1", True), ("127.0.0.9", True), ("::", False), ("0.0.0.0", False)])
def test_what_reaches_this_machine_only(name: str, loopback: bool) -> None:
    assert is_loopback(name) is loopback
