"""The monitor as a process: its pages, its settings, its commands, its end and its next start."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import typer
from typer.testing import CliRunner

from monitoring import cli
from monitoring.app import run_forever
from monitoring.delivery.webhook import signed_headers, verify
from monitoring.errors import SignatureError, StateError
from monitoring.metrics import Metrics
from monitoring.pages.server import serve_pages
from monitoring.settings import MonitorSettings
from monitoring.state import MIGRATIONS, StateStore, lock_state
from service.contract.errors import DatasetError, InvalidInput, Refused, SettingsError
from service.contract.settings import load_settings
from tests.monitoring.receiver import receiver
from tests.monitoring.world import DRIFTED, World, rows

SECRET = "whsec_" + "a2V5" * 10
KEY = b"key" * 10


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PLUMBLINE_")]:
        monkeypatch.delenv(name)


def invoke(command: Callable[..., Any], *arguments: object, stdin: bytes = b"") -> tuple[str, BaseException | None]:
    """Standard output of a command, and the error that it raised."""
    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)
    failure = result.exception if not isinstance(result.exception, SystemExit) else None
    return result.stdout, failure


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def get(url: str) -> httpx.Response:
    return httpx.get(url, trust_env=False, timeout=5)


class TestPages:
    def test_metrics_probes_and_reports(self, tmp_path: Path) -> None:
        ready = False
        (tmp_path / "reports" / "tickets").mkdir(parents=True)
        (tmp_path / "reports" / "tickets" / "w1.html").write_text("<h1>Alert</h1>")
        (tmp_path / "secret.html").write_text("secret")
        metrics = Metrics()
        metrics.show_state("tickets", "drift")
        with serve_pages("127.0.0.1", 0, metrics, tmp_path / "reports", lambda: ready) as address:
            assert get(f"{address}/livez").status_code == 200
            assert get(f"{address}/readyz").status_code == 503
            ready = True
            assert get(f"{address}/readyz").status_code == 200
            assert 'plumbline_drift_state{model="tickets"} 2.0' in get(f"{address}/metrics").text
            assert "/reports/tickets/w1.html" in get(f"{address}/reports/").text
            assert get(f"{address}/reports/tickets/w1.html").text == "<h1>Alert</h1>"
            for path in ("/reports/..%2fsecret.html", "/reports/tickets/%00.html", "/reports/tickets", "/elsewhere"):
                assert get(address + path).status_code == 404

    def test_a_taken_port_is_named(self, tmp_path: Path) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            with (
                pytest.raises(StateError, match=f"127.0.0.1:{port} cannot be listened on"),
                serve_pages("127.0.0.1", port, Metrics(), tmp_path, lambda: True),
            ):
                pass


class TestSettings:
    def test_every_setting_is_described(self) -> None:
        assert all(field.description for field in MonitorSettings.model_fields.values())

    def test_lists_are_separated_by_commas(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PLUMBLINE_WEBHOOK_URLS", "https://a.example/x, https://b.example/y")
        monkeypatch.setenv("PLUMBLINE_WEBHOOK_BACKOFF", "0.1, 5")
        monkeypatch.setenv("PLUMBLINE_WEBHOOK_SECRET", f"{SECRET} {SECRET}")
        settings = load_settings(MonitorSettings)
        assert settings.webhook_urls == ("https://a.example/x", "https://b.example/y")
        assert settings.webhook_backoff == (0.1, 5.0)
        assert settings.secrets == (KEY, KEY)
        assert SECRET not in repr(settings)

    @pytest.mark.parametrize(
        ("variable", "value"),
        [
            ("WEBHOOK_URLS", "ftp://example.com"),
            ("WEBHOOK_SECRET", "password"),
            ("WEBHOOK_SECRET", "whsec_c2hvcnQ="),
            ("WEBHOOK_BACKOFF", "soon"),
            ("WINDOW_ROWS", "3"),
            ("RETRAIN", "maybe"),
            ("RETRAIN_COMMAND", "'unclosed"),
            ("ALERTMANAGER_URL", "localhost"),
        ],
    )
    def test_what_is_not_allowed_is_named_and_secrets_are_not_shown(
        self, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
    ) -> None:
        monkeypatch.setenv(f"PLUMBLINE_{variable}", value)
        with pytest.raises(SettingsError, match=f"PLUMBLINE_{variable}") as error:
            load_settings(MonitorSettings)
        assert variable != "WEBHOOK_SECRET" or value not in str(error.value)

    def test_the_state_lies_beside_the_log(self) -> None:
        assert load_settings(MonitorSettings, log=Path("/data/log")).state_folder == Path("/data/monitor")
        with pytest.raises(SettingsError, match="--log"):
            _ = load_settings(MonitorSettings).log_folder


class TestState:
    def test_two_monitors_cannot_share_a_state(self, tmp_path: Path) -> None:
        with lock_state(tmp_path), pytest.raises(StateError, match="another monitor"), lock_state(tmp_path):
            pass
        with lock_state(tmp_path):
            pass

    def test_a_state_of_a_newer_version_or_no_database_is_refused(self, tmp_path: Path) -> None:
        store = StateStore(tmp_path)
        store.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
        store.close()
        with pytest.raises(StateError, match="newer"):
            StateStore(tmp_path)
        (tmp_path / "monitor.sqlite").write_bytes(b"no database at all" * 100)
        with pytest.raises(StateError, match="cannot be opened"):
            StateStore(tmp_path)


class TestMonitorCommand:
    def arguments(self, world: World, *more: object) -> list[object]:
        return ["--repo", world.repo, "--log", world.log, "--state", world.state, "--once", *more]

    @pytest.fixture(autouse=True)
    def _small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PLUMBLINE_REPORTS_KEPT", "0")
        monkeypatch.setenv("PLUMBLINE_MIN_ROWS", "40")

    def test_once_prints_its_decisions_delivers_and_refuses_on_drift(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bundle = world.publish()
        world.write_log(bundle, 80, DRIFTED)
        with receiver() as there:
            monkeypatch.setenv("PLUMBLINE_WEBHOOK_URLS", there.url())
            monkeypatch.setenv("PLUMBLINE_WEBHOOK_SECRET", SECRET)
            out, error = invoke(cli.monitor, *self.arguments(world, "--json", "--fail-on-drift"))
        assert isinstance(error, Refused)
        (window,) = json.loads(out)["windows"]
        assert (window["severity"], window["change"], window["retrain_requested"]) == ("warning", "detected", True)
        types = []
        for _, headers, body in there.received:
            verify((KEY,), headers, body)
            types.append(orjson.loads(body)["type"])
        assert sorted(types) == ["plumbline.drift.detected", "plumbline.retrain.requested"]

    def test_once_in_words(self, world: World) -> None:
        bundle = world.publish()
        world.write_log(bundle, 80)
        out, error = invoke(cli.monitor, *self.arguments(world, "--fail-on-drift"))
        assert error is None
        assert "tickets version 1, 80 rows" in out
        assert "UTC: none" in out
        assert "No window" in invoke(cli.monitor, *self.arguments(world))[0]

    def test_its_log_is_json_if_asked(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        world.write_log(world.publish(), 80)
        monkeypatch.setenv("PLUMBLINE_LOG_FORMAT", "json")
        app = typer.Typer()
        app.command()(cli.monitor)
        lines = CliRunner().invoke(app, [str(one) for one in self.arguments(world)]).stderr.splitlines()
        assert "window of 80 rows of tickets version 1" in json.loads(lines[-1])["message"]

    @pytest.mark.parametrize("once", [True, False])
    @pytest.mark.parametrize("variable", ["WEBHOOK_URLS", "RETRAIN_URL"])
    def test_events_do_not_go_out_unsigned_unless_that_is_said(
        self, world: World, monkeypatch: pytest.MonkeyPatch, variable: str, once: bool
    ) -> None:
        world.write_log(world.publish(), 80)
        monkeypatch.setenv(f"PLUMBLINE_{variable}", "http://127.0.0.1:9/hook")
        options = self.arguments(world)
        _, error = invoke(cli.monitor, *(options if once else options[:-1]))
        assert isinstance(error, SettingsError)
        assert "plumbline webhook secret" in str(error)
        assert "http://127.0.0.1:9/hook would go out unsigned" in str(error)

    def test_unsigned_events_are_warned_of_at_every_start_and_on_the_page(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        settings = world.settings(webhook_urls="http://127.0.0.1:9/hook", webhook_unsigned="true")
        stop, pages = threading.Event(), list[str]()

        def look(address: str) -> None:
            pages.append(get(address).text)
            stop.set()

        run_forever(settings, stop, look)
        assert "http://127.0.0.1:9/hook go out unsigned" in pages[0]
        assert "http://127.0.0.1:9/hook go out unsigned" in caplog.text

    def test_it_waits_for_what_is_missing_and_says_so_and_how_far_the_next_window_is(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO")
        world.log.rmdir()
        settings = world.settings(monitor_poll_seconds=0.05, window_rows=500, window_seconds=1e12)
        stop, addresses = threading.Event(), list[str]()
        thread = threading.Thread(target=run_forever, args=(settings, stop, addresses.append))
        thread.start()
        try:
            wait_for(lambda: "no row waits" in caplog.text)
            assert f"{world.repo} does not exist; waiting for" in caplog.text
            assert f"there is no log at {world.log}; waiting for" in caplog.text
            world.write_log(world.publish(), 100)
            wait_for(lambda: "tickets version 1: 100 of 500 rows towards the next window" in caplog.text)
            assert "100 of 500 rows" in get(addresses[0]).text
        finally:
            stop.set()
            thread.join(30)

    def test_a_missing_log_is_named(self, world: World) -> None:
        _, error = invoke(cli.monitor, "--repo", world.repo, "--log", world.root / "nowhere", "--once")
        assert isinstance(error, InvalidInput)
        assert "nowhere" in str(error)

    def test_a_repository_without_models_is_named(self, world: World) -> None:
        world.write_log(world.publish(), 200)
        empty = world.root / "typo"
        _, error = invoke(cli.monitor, "--repo", empty, "--log", world.log, "--once", "--fail-on-drift")
        assert isinstance(error, InvalidInput)
        assert "typo" in str(error)


class TestDriftCommand:
    def texts(self, world: World, kind: Any = DRIFTED) -> Path:
        file = world.root / "new.csv"
        file.write_text("text\n" + "\n".join(row["text"] for row in rows(150, kind, 9)) + "\n")
        return file

    def test_texts_alone_are_compared_and_the_output_says_so(self, world: World) -> None:
        bundle = world.publish()
        out, error = invoke(cli.drift, bundle.path, self.texts(world))
        assert error is None
        assert "warning" in out
        assert "Only the texts were compared" in out

    def test_a_segment_is_compared_with_its_outputs_and_reported(self, world: World) -> None:
        bundle = world.publish()
        page = world.root / "page.html"
        segment = world.write_log(bundle, 100, DRIFTED)
        out, error = invoke(cli.drift, bundle.path, segment, "--json", "--report", page, "--fail-on-drift")
        assert isinstance(error, Refused)
        found = json.loads(out)
        assert not found["texts_only"]
        assert {"label", "confidence", "tokens"} <= {signal["name"] for signal in found["signals"]}
        assert "Drift: tickets version 1" in page.read_text()

    def test_texts_like_the_reference_pass(self, world: World) -> None:
        bundle = world.publish()
        file = world.root / "same.csv"
        file.write_text("text\n" + "\n".join(row["text"] for row in rows(150, seed=9)) + "\n")
        assert invoke(cli.drift, bundle.path, file, "--fail-on-drift")[1] is None

    def test_a_damaged_parquet_and_a_wrong_column_are_named(self, world: World) -> None:
        bundle = world.publish()
        broken = world.root / "broken.parquet"
        broken.write_bytes(b"PAR1 nothing")
        assert isinstance(invoke(cli.drift, bundle.path, broken)[1], DatasetError)
        wrong = invoke(cli.drift, bundle.path, self.texts(world), "--text-column", "txt")[1]
        assert "Did you mean 'text'" in str(wrong)


class TestWebhookCommands:
    def test_verify_reads_the_body_from_standard_input(self) -> None:
        headers = signed_headers((KEY,), "evt", int(time.time()), b'{"a": 1}')
        options = ["--id", "evt", "--timestamp", headers["webhook-timestamp"], "--secret", SECRET]
        options += ["--signature", headers["webhook-signature"]]
        assert invoke(cli.verify, *options, stdin=b'{"a": 1}') == ("the signature holds\n", None)
        assert isinstance(invoke(cli.verify, *options, stdin=b'{"a": 2}')[1], SignatureError)

    def test_verify_without_a_secret_says_how_to_give_one(self) -> None:
        error = invoke(cli.verify, "--id", "a", "--timestamp", "1", "--signature", "v1,x")[1]
        assert isinstance(error, SettingsError)
        assert "PLUMBLINE_WEBHOOK_SECRET" in str(error)

    def test_listen_answers_401_to_a_bad_signature_and_prints_good_events(self) -> None:
        command = "from monitoring.cli import webhook; webhook()"
        process = subprocess.Popen(
            [sys.executable, "-c", command, "listen", "--port", "0", "--secret", SECRET, "--count", "1"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stderr is not None
            address = process.stderr.readline().split()[-1]
            body = b'{"type": "plumbline.drift.detected"}'
            good = signed_headers((KEY,), "evt", int(time.time()), body)
            bad = signed_headers((b"x" * 30,), "evt", int(time.time()), body)
            with httpx.Client(trust_env=False) as client:
                assert client.post(address, content=body, headers=bad).status_code == 401
                assert client.post(address, content=body, headers=good).status_code == 204
            out, _ = process.communicate(timeout=10)
        finally:
            process.kill()
        assert out == body.decode() + "\n"
        assert process.returncode == 0

    def test_the_command_that_listen_prints_verifies_the_event_once_more(self) -> None:
        environment = {**os.environ, "PLUMBLINE_WEBHOOK_SECRET": SECRET}
        process = subprocess.Popen(
            [sys.executable, "-m", "plumbline", "webhook", "listen", "--port", "0", "--count", "1"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        try:
            assert process.stderr is not None
            address = process.stderr.readline().split()[-1]
            body = b'{"text": "it\'s $HOME"}'
            httpx.post(address, content=body, headers=signed_headers((KEY,), "evt", int(time.time()), body))
            _, said = process.communicate(timeout=30)
        finally:
            process.kill()
        (again,) = [line.removeprefix("verify: ") for line in said.splitlines() if line.startswith("verify: ")]
        done = subprocess.run(["sh", "-c", again], capture_output=True, text=True, env=environment, timeout=60)
        assert done.stdout == "the signature holds\n", done.stderr

    def test_a_new_secret_is_alone_on_standard_output_and_can_be_set(self, monkeypatch: pytest.MonkeyPatch) -> None:
        out, error = invoke(cli.secret)
        assert error is None
        monkeypatch.setenv("PLUMBLINE_WEBHOOK_SECRET", out.strip())
        assert len(load_settings(MonitorSettings).secrets[0]) == 32

    def test_replay_needs_to_be_told_what_and_where(self, tmp_path: Path) -> None:
        assert isinstance(invoke(cli.replay, "--state", tmp_path)[1], InvalidInput)
        assert isinstance(invoke(cli.replay, "--state", tmp_path, "--dead")[1], InvalidInput)
        StateStore(tmp_path).close()
        assert invoke(cli.replay, "--state", tmp_path, "--dead") == ("0 deliveries are due again\n", None)


def test_a_running_monitor_detects_delivers_and_asks_for_a_retrain(world: World, tmp_path: Path) -> None:
    bundle, mark, stop = world.publish(), tmp_path / "retrained", threading.Event()
    command = f"{sys.executable} -c \"import pathlib; pathlib.Path('{mark}').touch()\""
    addresses: list[str] = []
    with receiver() as there:
        settings = world.settings(
            webhook_urls=there.url(), webhook_secret=SECRET, monitor_poll_seconds=0.1, retrain_command=command
        )
        thread = threading.Thread(target=run_forever, args=(settings, stop, addresses.append))
        thread.start()
        try:
            wait_for(lambda: addresses and get(f"{addresses[0]}/readyz").status_code == 200)
            world.write_log(bundle, 100, DRIFTED)
            wait_for(lambda: len(there.received) == 2 and mark.exists())
            text = get(f"{addresses[0]}/metrics").text
        finally:
            stop.set()
            thread.join(30)
    assert not thread.is_alive()
    assert 'plumbline_drift_state{model="tickets"} 2.0' in text
    assert 'plumbline_retrains_total{model="tickets",result="requested"} 1.0' in text


def start_monitor(world: World, url: str) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "PLUMBLINE_WEBHOOK_URLS": url,
        "PLUMBLINE_WEBHOOK_SECRET": SECRET,
        "PLUMBLINE_WEBHOOK_BACKOFF": ",".join(["0.5"] * 200),
        "PLUMBLINE_WINDOW_ROWS": "100",
        "PLUMBLINE_REPORTS_KEPT": "0",
        "PLUMBLINE_MONITOR_POLL_SECONDS": "0.2",
    }
    arguments = ["--repo", world.repo, "--log", world.log, "--state", world.state, "--port", "0"]
    return subprocess.Popen(
        [sys.executable, "-m", "plumbline", "monitor", *map(str, arguments)],
        env=environment,
        stderr=subprocess.DEVNULL,
        cwd=Path(__file__).parents[2],
    )


@pytest.mark.slow
def test_killed_and_started_again_the_monitor_delivers_once_the_receiver_is_up(world: World) -> None:
    bundle = world.publish()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}/hook"
    first = start_monitor(world, url)
    try:
        wait_for(lambda: (world.state / "monitor.sqlite").exists())
        world.write_log(bundle, 250, DRIFTED)
        wait_for(lambda: _attempts(world) >= 2)
    finally:
        first.kill()
        first.wait()
    second = start_monitor(world, url)
    try:
        with receiver(port=port) as there:
            wait_for(lambda: len(there.received) >= 2)
            second.send_signal(signal.SIGTERM)
            assert second.wait(30) == 0
    finally:
        second.kill()
    for _, headers, body in there.received:
        verify((KEY,), headers, body)
    types = sorted(orjson.loads(body)["type"] for _, _, body in there.received)
    assert types == ["plumbline.drift.detected", "plumbline.retrain.requested"]
    store = StateStore(world.state)
    assert [tuple(row) for row in store.rows("SELECT rows FROM windows")] == [(100,), (100,)]
    store.close()


def _attempts(world: World) -> int:
    store = StateStore(world.state)
    row = store.row("SELECT coalesce(sum(attempts), 0) AS n FROM outbox")
    store.close()
    return int(row["n"]) if row else 0
