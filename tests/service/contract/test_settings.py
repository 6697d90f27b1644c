"""Settings: where they come from, what is said about a bad one, and that no secret is ever shown."""

from __future__ import annotations

import os
import traceback
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field, SecretStr, model_validator

from monitoring.settings import MonitorSettings
from service.contract.errors import SettingsError
from service.contract.settings import Setting, Settings, describe_settings, load_settings
from service.contract.variables import SETTINGS
from service.settings import ServiceSettings

SECRET = "hunter2-hunter2"


class Example(Settings):
    port: int = Field(8080, ge=1, le=65535, description="where to listen")
    device: Literal["auto", "cpu"] = "auto"
    max_wait: float = Field(0.5, gt=0)
    api_key: SecretStr | None = Field(None, min_length=12, description="what callers must give")
    hosts: tuple[str, ...] = ()
    log: Path | None = None

    @model_validator(mode="after")
    def _cpu_has_no_long_wait(self) -> Example:
        if self.device == "cpu" and self.max_wait > 5:
            raise ValueError("max_wait over 5 needs another device")
        return self


class Required(Settings):
    repo: Path


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.upper().startswith("PLUMBLINE_"):
            monkeypatch.delenv(name)


def refusal(**options: object) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(Example, **options)
    assert caught.value.exit_code == 2
    return str(caught.value)


def described(settings: Settings, variable: str) -> Setting:
    return next(row for row in describe_settings(settings) if row.variable == variable)


class TestOrigin:
    def test_defaults(self) -> None:
        settings = load_settings(Example)
        assert (settings.port, settings.device, settings.api_key) == (8080, "auto", None)
        assert described(settings, "PLUMBLINE_PORT") == Setting("PLUMBLINE_PORT", "8080", "default", "where to listen")

    def test_the_environment_wins_over_the_default(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PLUMBLINE_PORT", "81")
        settings = load_settings(Example)
        assert settings.port == 81
        assert described(settings, "PLUMBLINE_PORT").origin == "environment"

    def test_the_command_line_wins_over_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PLUMBLINE_PORT", "81")
        assert load_settings(Example, port=82).port == 82

    def test_an_option_that_was_not_given_does_not(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PLUMBLINE_PORT", "81")
        assert load_settings(Example, port=None).port == 81

    def test_the_command_line_is_named(self) -> None:
        assert described(load_settings(Example, port=82), "PLUMBLINE_PORT").origin == "command line"

    def test_the_command_line_is_named_where_it_won(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PLUMBLINE_PORT", "81")
        row = described(load_settings(Example, port=82), "PLUMBLINE_PORT")
        assert (row.value, row.origin) == ("82", "command line")

    def test_a_variable_in_small_letters_is_named_as_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("plumbline_port", "81")
        row = described(load_settings(Example), "PLUMBLINE_PORT")
        assert (row.value, row.origin) in {("81", "environment"), ("8080", "default")}

    def test_other_variables_are_no_settings(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PORT", "81")
        monkeypatch.setenv("PLUMBLINE_WINDOW_ROWS", "500")  # of the monitor, which shares the environment
        monkeypatch.setenv("PLUMBLINE_SERVE_SERVICE_HOST", "10.0.0.1")  # Kubernetes, of a service plumbline-serve
        monkeypatch.setenv("PLUMBLINE_SERVE_PORT_8000_TCP_ADDR", "10.0.0.1")
        assert load_settings(Example).port == 8080

    @pytest.mark.parametrize(
        ("variable", "meant"),
        [
            ("PLUMBLINE_ADMIN_KEYZ", "PLUMBLINE_ADMIN_KEYS"),
            ("PLUMBLINE_LOG_UPLAOD", "PLUMBLINE_LOG_UPLOAD"),
            ("PLUMBLINE_WINDOW_ROW", "PLUMBLINE_WINDOW_ROWS"),
            ("PLUMBLINE_ADMIN_KEYZ_FILE", "PLUMBLINE_ADMIN_KEYS"),
            ("PLUMBLINE_ZZZ", ""),
        ],
    )
    def test_a_variable_that_nobody_reads_is_told_with_the_one_that_was_meant(
        self, monkeypatch: pytest.MonkeyPatch, variable: str, meant: str
    ) -> None:
        monkeypatch.setenv(variable, "1")
        with pytest.raises(SettingsError, match=f"{variable} is no setting") as refused:
            load_settings(Example)
        assert f"Do you mean {meant}?" in str(refused.value) if meant else "Do you mean" not in str(refused.value)

    def test_all_settings_are_known_by_name(self) -> None:
        assert {*ServiceSettings.model_fields, *MonitorSettings.model_fields} == SETTINGS

    def test_settings_do_not_change(self) -> None:
        with pytest.raises(ValueError, match="frozen"):
            load_settings(Example).port = 1  # type: ignore[misc]


class TestSecretFiles:
    @pytest.fixture
    def file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        path = tmp_path / "key"
        path.write_text(f"{SECRET}\n")
        monkeypatch.setenv("PLUMBLINE_API_KEY_FILE", str(path))
        return path

    @pytest.mark.usefixtures("file")
    def test_a_secret_comes_from_the_file_without_its_line_feed(self) -> None:
        settings = load_settings(Example)
        assert settings.api_key is not None
        assert settings.api_key.get_secret_value() == SECRET
        assert described(settings, "PLUMBLINE_API_KEY").origin == "PLUMBLINE_API_KEY_FILE"

    @pytest.mark.usefixtures("file")
    def test_the_variable_wins_over_the_file(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PLUMBLINE_API_KEY", "from the variable")
        settings = load_settings(Example)
        assert settings.api_key is not None
        assert settings.api_key.get_secret_value() == "from the variable"

    def test_only_secrets_come_from_files(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "port").write_text("81")
        monkeypatch.setenv("PLUMBLINE_PORT_FILE", str(tmp_path / "port"))
        assert load_settings(Example).port == 8080

    def test_a_missing_file_is_named_with_its_variable(self, file: Path) -> None:
        file.unlink()
        message = refusal()
        assert "PLUMBLINE_API_KEY_FILE" in message
        assert str(file) in message

    def test_a_file_that_is_no_text(self, file: Path) -> None:
        file.write_bytes(b"\xff\xfe\x00")
        assert "PLUMBLINE_API_KEY_FILE" in refusal()


class TestErrors:
    @pytest.mark.parametrize(
        ("variable", "value", "allowed"),
        [
            ("PLUMBLINE_PORT", "99999", "less than or equal to 65535"),
            ("PLUMBLINE_PORT", "http", "valid integer"),
            ("PLUMBLINE_PORT", "", "valid integer"),
            ("PLUMBLINE_DEVICE", "tpu", "'auto' or 'cpu'"),
            ("PLUMBLINE_MAX_WAIT", "0", "greater than 0"),
        ],
    )
    def test_variable_value_and_what_is_allowed_are_named(
        self, variable: str, value: str, allowed: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(variable, value)
        message = refusal()
        assert f"{variable} is {value!r}" in message
        assert allowed in message

    def test_a_bad_option_is_named_as_it_was_given(self) -> None:
        assert "PLUMBLINE_MAX_WAIT (option --max-wait) is -1" in refusal(max_wait=-1)

    def test_a_missing_setting_is_named(self) -> None:
        with pytest.raises(SettingsError, match="PLUMBLINE_REPO: Field required"):
            load_settings(Required)

    def test_settings_that_do_not_go_together(self) -> None:
        assert "max_wait over 5 needs another device" in refusal(device="cpu", max_wait=6)

    def test_a_list_that_is_no_json(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PLUMBLINE_HOSTS", "a,b")
        assert "PLUMBLINE_HOSTS" in refusal()


class TestSecretsStayHidden:
    def test_in_repr_and_description(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PLUMBLINE_API_KEY", SECRET)
        settings = load_settings(Example)
        shown = f"{settings!r} {settings} {describe_settings(settings)} {settings.model_dump_json()}"
        assert SECRET not in shown
        assert described(settings, "PLUMBLINE_API_KEY").value == "**********"

    def test_in_the_error_about_a_secret(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PLUMBLINE_API_KEY", "hunter2")
        message = refusal()
        assert "PLUMBLINE_API_KEY" in message
        assert "hunter2" not in message

    def test_in_the_error_about_another_setting(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PLUMBLINE_API_KEY", SECRET)
        monkeypatch.setenv("PLUMBLINE_PORT", "0")
        assert SECRET not in refusal()

    def test_in_the_error_about_settings_that_do_not_go_together(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PLUMBLINE_API_KEY", SECRET)
        assert SECRET not in refusal(device="cpu", max_wait=6)

    def test_in_the_traceback(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PLUMBLINE_API_KEY", "hunter2")
        with pytest.raises(SettingsError) as caught:
            load_settings(Example)
        assert "hunter2" not in "".join(traceback.format_exception(caught.value))

    def test_in_the_error_about_a_secret_with_limits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Limited(Settings):
            token: Annotated[SecretStr, Field(min_length=12)] | None = None

        monkeypatch.setenv("PLUMBLINE_TOKEN", "hunter2")
        with pytest.raises(SettingsError) as caught:
            load_settings(Limited)
        assert "hunter2" not in str(caught.value)
