"""Commands that the user may type next, as a shell reads them."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

from service.contract.bundle import Manifest
from service.contract.repository import SERVING, read_serving


def plumbline(*words: object, **options: object) -> str:
    """A command line, quoted for a POSIX shell: ``plumbline export checkpoint --train 'my rows.csv'``.

    ``options`` are the long ones with underscores, and a final one where Python would have a keyword; None and False
    leave an option out, True gives a flag.
    """
    parts = [*_program(), *map(str, words)]
    for name, value in options.items():
        option = "--" + name.rstrip("_").replace("_", "-")
        if value is True:
            parts.append(option)
        elif value is not None and value is not False:
            parts += [option, str(value)]
    return shlex.join(parts)


def to_serve(path: Path, manifest: Manifest) -> str | None:
    """The command that serves the version in ``path`` if it is live, or makes it live; None outside a repository."""
    folder = path.absolute()
    repo = path.parent.parent
    if (folder.parent.name, folder.name) != (manifest.name, manifest.version):
        return None
    if (repo / manifest.name / SERVING).exists() and read_serving(repo, manifest.name).live == manifest.version:
        return plumbline("serve", repo=repo, log=log_beside(repo))
    return plumbline("rollout", repo=repo, name=manifest.name, live=manifest.version)


def log_beside(repo: Path) -> Path:
    """Where the log of a server goes unless the user says otherwise: into ``log`` beside the repository."""
    return repo.parent / "log"


def say_next(command: str | None) -> None:
    """Print the next command on a line of its own, the last of what a command prints for people."""
    if command is not None:
        print(f"next: {command}")


def _program() -> list[str]:
    """This program as it can be called again from here: by its name if the shell finds it, else as it was called."""
    called = Path(sys.argv[0])
    if called.parts[-2:] == ("plumbline", "__main__.py"):  # python -m plumbline
        return [sys.executable, "-m", "plumbline"]
    if called.name != "plumbline":  # a program that uses the command line as a library
        return ["plumbline"]
    found = shutil.which("plumbline")
    return ["plumbline"] if found and Path(found).resolve() == called.resolve() else [str(called)]
