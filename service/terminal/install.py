"""How to install what is missing: from this project's own files. Its name on a package index is a stranger's."""

from __future__ import annotations

from service import __version__


def how_to_install(extra: str) -> str:
    """What to type for an extra such as ``export`` or ``export,monitor``, from a checkout or with the wheel."""
    return (
        f"in a checkout of Plumbline run `pip install --constraint constraints.txt -e '.[{extra}]'`, "
        f"or beside its wheel `pip install './plumbline-{__version__}-py3-none-any.whl[{extra}]'`"
    )
