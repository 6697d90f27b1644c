"""Settings from ``PLUMBLINE_…`` variables: read once, frozen, validated with errors that name the variable.

A package's settings are a subclass of :class:`Settings`. The command line wins over the environment; a secret may
also come from a file named by ``PLUMBLINE_…_FILE``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, PrivateAttr, SecretStr, ValidationError
from pydantic.fields import FieldInfo

from service.contract.errors import SettingsError
from service.contract.user import this_user
from service.contract.variables import PREFIX, check_variables


class Settings(BaseModel):
    """Base of each package's settings; made by :func:`load_settings`, or directly in tests."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)


S = TypeVar("S", bound=Settings)


def load_settings(cls: type[S], **options: Any) -> S:
    """Build settings from command-line ``options`` (None means not given) and the environment.

    :raises SettingsError: naming the variable, its value unless it is a secret, and what is allowed; also if there is a
        variable that nothing of Plumbline knows.
    """
    check_variables(os.environ, cls.model_fields)
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for name, field in cls.model_fields.items():
        variable = PREFIX + name.upper()
        if options.get(name) is not None:
            values[name], origins[name] = options[name], "command line"
        elif variable in os.environ:
            values[name], origins[name] = os.environ[variable], "environment"
        elif f"{variable}_FILE" in os.environ and _is_secret(field):
            values[name], origins[name] = _read_secret(f"{variable}_FILE"), f"{variable}_FILE"
    try:
        settings = cls.model_validate(values)
    except ValidationError as error:
        raise SettingsError(_explain(cls, error, origins)) from error
    settings._origins.update(origins)
    return settings


@dataclass(frozen=True)
class Setting:
    """One row of ``plumbline config``."""

    variable: str
    value: str
    origin: str
    meaning: str


def describe_settings(settings: Settings) -> list[Setting]:
    """Every setting with its value (secrets hidden), where it came from, and what it means."""
    return [
        Setting(
            PREFIX + name.upper(),
            _as_written(getattr(settings, name)),
            settings._origins.get(name, "default"),
            field.description or "",
        )
        for name, field in type(settings).model_fields.items()
    ]


def _as_written(value: object) -> str:
    """A value as it would be given in a variable; empty for none."""
    if isinstance(value, tuple):
        return ",".join(map(_as_written, value))
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _read_secret(variable: str) -> str:
    path = os.environ[variable]
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise SettingsError(
            f"{variable} names {path}, which cannot be read: {reason}. Write or mount the secret there so that "
            f"{this_user()} may read it, or unset the variable."
        ) from error


def _explain(cls: type[Settings], error: ValidationError, origins: dict[str, str]) -> str:
    problem = error.errors()[0]
    problem["msg"] = problem["msg"].removeprefix("Value error, ")  # pydantic's own words
    if not problem["loc"]:  # settings that do not go together: the input is all of them, secrets too
        return f"the settings do not go together: {problem['msg']}."
    name = str(problem["loc"][0])
    option = f" (option --{name.replace('_', '-')})" if origins.get(name) == "command line" else ""
    shown = "" if problem["type"] == "missing" or _is_secret(cls.model_fields[name]) else f" is {problem['input']!r}"
    return f"{PREFIX}{name.upper()}{option}{shown}: {problem['msg']}."


def _is_secret(field: FieldInfo) -> bool:
    return _mentions_secret(field.annotation)


def _mentions_secret(annotation: object) -> bool:
    return annotation is SecretStr or any(map(_mentions_secret, get_args(annotation)))
