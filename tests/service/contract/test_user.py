"""Messages about rights name the user, and root is told that it need not be."""

from __future__ import annotations

import errno
import logging
import os
import tempfile
from pathlib import Path

import pytest

from monitoring.errors import StateError
from monitoring.progress import cares
from monitoring.settings import MonitorSettings
from monitoring.state import lock_state
from service.contract.errors import BundleError, SettingsError
from service.contract.repository import live_names, staging
from service.contract.settings import load_settings
from service.contract.user import care_of_root
from service.http.server import serve
from service.settings import ServiceSettings
from tests.fakes import make_bundle


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)


@pytest.fixture
def somebody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 54321)


@pytest.mark.usefixtures("somebody")
def test_nobody_but_root_is_told_about_root(tmp_path: Path) -> None:
    assert care_of_root() is None
    settings = MonitorSettings(repo=tmp_path, log=tmp_path)
    assert not any("runs as root" in care for care in cares(settings))


@pytest.mark.usefixtures("root")
def test_a_server_and_a_monitor_started_as_root_say_so_with_the_mend(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (blocked := tmp_path / "log").write_text("")  # ends the server before it listens
    with caplog.at_level(logging.WARNING), pytest.raises(SettingsError):
        serve(ServiceSettings(repo=tmp_path, log=blocked))
    (said,) = [record.getMessage() for record in caplog.records]
    assert "runs as root" in said
    assert "--user 10001" in said
    assert said in list(cares(MonitorSettings(repo=tmp_path, log=tmp_path)))


@pytest.mark.usefixtures("somebody")
def test_a_log_that_may_not_be_written_is_told_before_anything_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    with pytest.raises(SettingsError, match=r"PLUMBLINE_LOG is .*, which user 54321 cannot write.*mount"):
        serve(ServiceSettings(repo=tmp_path, log=tmp_path))


@pytest.mark.usefixtures("somebody")
def test_a_missing_secret_is_told_with_its_file_and_the_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PLUMBLINE_API_KEYS", raising=False)
    monkeypatch.setenv("PLUMBLINE_API_KEYS_FILE", str(tmp_path / "keys"))
    with pytest.raises(SettingsError, match=r"API_KEYS_FILE names .*/keys, .*No such file.*mount .* user 54321"):
        load_settings(ServiceSettings)


@pytest.mark.usefixtures("somebody")
def test_a_repository_that_may_not_be_read_or_written_is_told_with_the_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_bundle(tmp_path)

    def refuse(code: int) -> object:
        def refused(*_args: object, **_options: object) -> None:
            raise OSError(code, os.strerror(code), str(tmp_path))

        return refused

    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "mkdtemp", refuse(errno.EROFS))
        with (
            pytest.raises(BundleError, match=r"cannot be written: Read-only file system.*user 54321.*mount"),
            staging(tmp_path, "reviews"),
        ):
            pass
    monkeypatch.setattr(Path, "iterdir", refuse(errno.EACCES))
    with pytest.raises(BundleError, match=r"cannot be read: Permission denied.*user 54321"):
        live_names(tmp_path)


@pytest.mark.usefixtures("somebody")
def test_a_monitor_s_state_that_may_not_be_written_is_told_with_the_mend(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(StateError, match=r"cannot be written.*user 54321.*mount.*--state"),
        lock_state(tmp_path / "file"),
    ):
        pass
