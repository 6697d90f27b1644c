"""The errors that cross package borders.

    PlumblineError                 exit code 1: a fault of ours or of the machine
    ├── InvalidInput               exit code 2: bad usage or bad input
    │   ├── DatasetError           a data file that cannot be used
    │   ├── SettingsError          a setting that cannot be used
    │   └── BundleError            a bundle or repository that cannot be trusted
    └── Refused                    exit code 3: everything worked and the answer is no

Each carries a stable ``code`` for programs; the message is for people and says what was wrong, where, and how to
mend it.
"""

from __future__ import annotations


class PlumblineError(Exception):
    """Base of every error raised on purpose."""

    code = "internal"
    exit_code = 1


class InvalidInput(PlumblineError):  # noqa: N818  reads better where it is raised
    """What the caller gave cannot be used."""

    code = "invalid_input"
    exit_code = 2


class DatasetError(InvalidInput):
    """A CSV, JSONL or Parquet file is missing, empty, malformed or lacks a column."""

    code = "invalid_dataset"


class SettingsError(InvalidInput):
    """A setting is missing or has a value that is not allowed."""

    code = "invalid_settings"


class BundleError(InvalidInput):
    """A bundle or model repository is missing, damaged, or fails its own checks."""

    code = "invalid_bundle"


class Refused(PlumblineError):  # noqa: N818  an answer, not a failure
    """The question was answered, and the answer is no: a gate failed, a challenger lost, drift was found."""

    code = "refused"
    exit_code = 3
