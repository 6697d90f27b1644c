"""Settings from ``PLUMBLINE_…`` variables: read once, frozen, validated with errors that name the variable.

A package's settings are a subclass of :class:`Settings`. The command line wins over the environment; a secret may
also come from a file named by ``PLUMBLINE_…_FILE``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from service.contract.errors import SettingsError

PREFIX = "PLUMBLINE_"


class _SecretFiles(PydanticBaseSettingsSource):
    """Reads each secret field from the file that ``PLUMBLINE_<FIELD>_FILE`` names."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        path = os.environ.get(f"{PREFIX}{field_name.upper()}_FILE")
        if path is None or not _is_secret(field):
            return None, field_name, False
        try:
            return Path(path).read_text(encoding="utf-8").strip(), field_name, False
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(
                f"{PREFIX}{field_name.upper()}_FILE names {path}, which cannot be read: {error}."
            ) from error

    def __call__(self) -> dict[str, Any]:
        values = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: value for name, value in values.items() if value is not None}


class Settings(BaseSettings):
    """Base of each package's settings."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, _SecretFiles(settings_cls)


S = TypeVar("S", bound=Settings)


def load_settings(cls: type[S], **options: Any) -> S:
    """Build settings from command-line ``options`` (None means not given) and the environment.

    :raises SettingsError: naming the variable, its value unless it is a secret, and what is allowed.
    """
    given = {name: value for name, value in options.items() if value is not None}
    try:
        return cls(**given)
    except ValidationError as error:
        problem = error.errors()[0]
        name = str(problem["loc"][0]) if problem["loc"] else ""
        option = f" (option --{name.replace('_', '-')})" if name in given else ""
        field = cls.model_fields.get(name)
        secret = field is not None and _is_secret(field)
        value = "" if secret or problem["type"] == "missing" else f" is {problem['input']!r}"
        raise SettingsError(f"{PREFIX}{name.upper()}{option}{value}: {problem['msg']}.") from error


@dataclass(frozen=True)
class Setting:
    """One row of ``plumbline config``."""

    variable: str
    value: str
    origin: str
    meaning: str


def describe_settings(settings: Settings) -> list[Setting]:
    """Every setting with its value (secrets hidden), where it came from, and what it means."""
    rows = []
    for name, field in type(settings).model_fields.items():
        variable = f"{PREFIX}{name.upper()}"
        if variable in os.environ:
            origin = "environment"
        elif f"{variable}_FILE" in os.environ and _is_secret(field):
            origin = f"{variable}_FILE"
        else:
            origin = "default" if name not in settings.model_fields_set else "command line"
        rows.append(Setting(variable, str(getattr(settings, name)), origin, field.description or ""))
    return rows


def _is_secret(field: FieldInfo) -> bool:
    return SecretStr in (field.annotation, *getattr(field.annotation, "__args__", ()))
