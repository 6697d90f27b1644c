"""Who may make a request: API keys, digests at rest, two scopes, none for probes; pages of other sites."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
from pydantic import SecretStr
from starlette.testclient import TestClient
from typer.testing import CliRunner

from plumbline import cli
from service.contract.errors import SettingsError
from service.contract.settings import load_settings
from service.http.app import Application
from service.http.keys import digest_of_key
from service.settings import ServiceSettings

USER, SECOND, ADMIN = "plb_user-key", "plb_second-key", "plb_admin-key"
PREDICT = {"inputs": "good"}


def secret(*keys: str) -> SecretStr:
    return SecretStr(" ".join(map(digest_of_key, keys)))


@pytest.fixture
def guarded(start: Callable[..., TestClient]) -> TestClient:
    return start(api_keys=secret(USER, SECOND), admin_keys=secret(ADMIN))


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.mark.parametrize("key", [USER, SECOND, ADMIN])
def test_a_valid_key_predicts(guarded: TestClient, key: str) -> None:
    assert guarded.post("/predict", json=PREDICT, headers=bearer(key)).status_code == 200
    assert guarded.post("/predict", json=PREDICT, headers={"x-api-key": key}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [{}, bearer("wrong"), bearer(""), bearer(USER[:-1]), {"authorization": f"Basic {USER}"}, {"x-api-key": "é"}],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/predict"),
        ("POST", "/"),
        ("POST", "/feedback"),
        ("GET", "/v2/models/reviews"),
        ("POST", "/v2/models/reviews/infer"),
        ("POST", "/v2/repository/models/reviews/unload"),
    ],
)
def test_without_a_valid_key_nothing_is_answered(
    guarded: TestClient, headers: dict[str, str], method: str, path: str
) -> None:
    encoded = {name: value.encode() for name, value in headers.items()}
    response = guarded.request(method, path, json=PREDICT if method == "POST" else None, headers=encoded)
    assert response.status_code == 401
    assert response.json()["code"] == "unauthorized"
    assert response.headers["www-authenticate"] == "Bearer"


def test_changing_what_is_served_takes_an_admin_key(guarded: TestClient) -> None:
    unload = "/v2/repository/models/reviews/unload"
    assert guarded.post(unload, headers=bearer(USER)).json()["code"] == "forbidden"
    assert guarded.post("/predict", json=PREDICT, headers=bearer(USER)).status_code == 200
    assert guarded.post(unload, headers=bearer(ADMIN)).status_code == 200


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/startupz", "/metrics", "/v2/health/live", "/v2/health/ready"])
def test_probes_ask_for_no_key(guarded: TestClient, path: str) -> None:
    assert guarded.get(path).status_code == 200


def test_with_user_keys_only_nobody_is_admin(start: Callable[..., TestClient]) -> None:
    client = start(api_keys=secret(USER))
    assert client.post("/v2/repository/models/reviews/unload", headers=bearer(USER)).status_code == 403


def test_no_key_appears_in_the_log(guarded: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        guarded.post("/predict", json=PREDICT, headers=bearer(USER))
        guarded.post("/predict", json=PREDICT, headers=bearer("guess-123"))
    assert USER not in caplog.text
    assert "guess-123" not in caplog.text


def test_a_key_in_place_of_its_digest_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLUMBLINE_API_KEYS", USER)
    with pytest.raises(SettingsError, match=r"PLUMBLINE_API_KEYS: .*not the keys themselves") as refused:
        load_settings(ServiceSettings)
    assert USER not in str(refused.value)


def test_the_command_makes_a_key_and_its_digest() -> None:
    shown = CliRunner().invoke(cli.build(), ["key"]).stdout.split()
    assert shown[0:4:2] == ["key", "digest"]
    assert digest_of_key(shown[1]) == shown[3]


def test_an_empty_setting_does_not_open_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLUMBLINE_API_KEYS", " ")
    with pytest.raises(SettingsError, match="would open the server"):
        load_settings(ServiceSettings)


def test_the_key_is_asked_for_before_the_body_is_looked_at(guarded: TestClient) -> None:
    for path in ("/predict", "/", "/feedback", "/v2/models/reviews/infer", "/v2/repository/index"):
        assert guarded.post(path, content=b"{not json").status_code == 401
        assert guarded.post(path, content=b" " * (4 * 2**20 + 1)).status_code == 401
    assert guarded.post("/predict", content=b"{not json", headers=bearer(USER)).status_code == 400


def test_every_route_asks_for_a_key_except_those_that_are_meant_to_be_open(guarded: TestClient) -> None:
    app = guarded.app
    assert isinstance(app, Application)
    paths = {**app.api.openapi()["paths"], "/docs": {"get": {}}, "/openapi.json": {"get": {}}, "/nothing": {"get": {}}}
    answered = {
        (method.upper(), path)
        for path, methods in paths.items()
        for method in methods
        if guarded.request(method, path.format(name="reviews", version="1")).status_code != 401
    }
    probes = ("/livez", "/readyz", "/startupz", "/health", "/ping", "/metrics", "/v2/health/live", "/v2/health/ready")
    assert answered == {("GET", path) for path in (*probes, "/", "/docs", "/openapi.json")}


def test_with_an_admin_key_the_origin_does_not_matter(guarded: TestClient) -> None:
    headers = bearer(ADMIN) | {"origin": "https://console.example"}
    assert guarded.post("/v2/repository/models/reviews/load", headers=headers).status_code == 200
