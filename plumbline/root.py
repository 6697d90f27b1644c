"""The root of the command line: whatever goes wrong becomes one line on stderr and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperGroup

from service.contract.errors import PlumblineError

INTERRUPTED = 130  # 128 + SIGINT, as shells have it


class Root(TyperGroup):
    """Shows a traceback only with ``--debug``."""

    needs: Callable[[str | None], str | None] = staticmethod(lambda command: None)
    """What to say if a module is missing in a command; None if nothing can be installed."""

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()  # here a closed pipe is still told apart from a fault
            return result
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise  # typer ends in silence when the reader of a pipe has gone
        except Exception as error:
            if ctx.params.get("debug") or _usage(error):
                raise
            code, message = self._explain(error, ctx.invoked_subcommand)
        except KeyboardInterrupt:
            if ctx.params.get("debug"):
                raise
            code, message = INTERRUPTED, "interrupted."
        typer.secho(f"plumbline: {message}", err=True, fg="red")
        raise typer.Exit(code)

    def _explain(self, error: Exception, command: str | None) -> tuple[int, str]:
        """The exit code and the line for people."""
        if isinstance(error, PlumblineError):
            return error.exit_code, str(error)
        if isinstance(error, ModuleNotFoundError) and (hint := self.needs(command)):
            return 2, f"{command} needs the module {error.name!r}: {hint}."
        if isinstance(error, OSError) and error.filename is not None:
            return 1, f"{error.filename}: {error.strerror or error}."
        if isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__ or "allocate memory" in str(error):
            return 1, "out of memory. Free some, or give a smaller --batch-size, fewer rows or a smaller model."
        first = (str(error).strip().splitlines() or [""])[0]
        return 1, (
            f"unexpected {type(error).__name__}: {first}\n"
            f"This is a fault in Plumbline; `plumbline --debug {command or ''} …` shows where."
        )


def _usage(error: Exception) -> bool:
    """Whether typer has its own way to show it: a wrong option, for example."""
    return hasattr(error, "format_message") and hasattr(error, "exit_code")
