"""The command line. Commands of the packages are found by name, so that the serving image needs none but its own."""

from __future__ import annotations

import importlib
import json
from typing import Annotated, Any

import typer

from plumbline import __version__
from plumbline.root import Root
from service.contract.errors import PlumblineError
from service.terminal.install import how_to_install
from service.terminal.logs import log_to_stderr

# Command: where it lives, and the extra that brings what it needs.
COMMANDS = {
    "finetune": ("export.cli", "export"),
    "distill": ("export.cli", "export"),
    "export": ("export.cli", "export"),
    "reproduce": ("export.cli", "export"),
    "inspect": ("service.cli", "serve"),
    "serve": ("service.cli", "serve"),
    "rollout": ("service.cli", "serve"),
    "monitor": ("monitoring.cli", "monitor"),
    "drift": ("monitoring.cli", "monitor"),
    "retrain": ("export.cli", "export"),
    "webhook": ("monitoring.cli", "monitor"),
    "key": ("service.cli", "serve"),
    "loadtest": ("loadtest.cli", "loadtest"),
    "config": ("plumbline.cli", "serve"),
    "demo": ("plumbline.demo.cli", "export,monitor"),
}
_SETTINGS = [("serve", "service.settings", "ServiceSettings"), ("monitor", "monitoring.settings", "MonitorSettings")]


def config(
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="print the table that docs/configuration.md holds")
    ] = False,
) -> None:
    """Show every setting, its value and where it came from.

    \b
    Examples:
      plumbline config
      plumbline config --json
    """
    from dataclasses import asdict

    from service.contract.settings import Settings, describe_settings, load_settings

    rows = {}
    users: dict[str, list[str]] = {}
    for command, module, name in _SETTINGS:
        try:
            settings: type[Settings] = getattr(importlib.import_module(module), name)
        except ModuleNotFoundError:
            continue
        for row in describe_settings(load_settings(settings)):
            rows[row.variable] = row
            users.setdefault(row.variable, []).append(command)
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in rows.values()]))
        return
    if as_markdown:
        typer.echo("| variable | default | read by | meaning |\n|---|---|---|---|")
        for row in rows.values():
            default, who = f"`{row.value}`" if row.value else "", ", ".join(users[row.variable])
            typer.echo(f"| `{row.variable}` | {default} | {who} | {row.meaning} |")
        return
    for row in rows.values():
        typer.echo(f"{row.variable}={row.value}   ({row.origin}) {row.meaning}")


def build() -> typer.Typer:
    """The whole command line."""
    app = typer.Typer(
        cls=_Root,
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # rich's tables cut names and text to the terminal's width
        help="Take a fine-tuned transformer from checkpoint to a monitored production endpoint, and keep it true.\n\n"
        "\b\n"
        "Examples:\n"
        "  plumbline finetune --train train.csv --eval eval.csv --out checkpoint\n"
        "  plumbline export checkpoint --train train.csv --eval eval.csv \\\n"
        "    --repo models --name reviews\n"
        "  plumbline serve --repo models --log log\n"
        "  plumbline monitor --repo models --log log",
    )

    @app.callback()
    def root(
        debug: Annotated[bool, typer.Option("--debug", help="show tracebacks")] = False,
        version: Annotated[
            bool, typer.Option("--version", callback=_show_version, is_eager=True, help="print the version and end")
        ] = False,
    ) -> None:
        log_to_stderr()

    for name, (module, extra) in COMMANDS.items():
        try:
            command = getattr(importlib.import_module(module), name)
        except ModuleNotFoundError:
            anything = {"ignore_unknown_options": True, "allow_extra_args": True}  # its options are not known here
            describe = app.command(name, context_settings=anything, help=f"Not installed: {how_to_install(extra)}.")
            describe(_missing(name, extra))
            continue
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name)(command)
    return app


class _Root(Root):
    @staticmethod
    def needs(command: str | None) -> str | None:
        _, extra = COMMANDS.get(command or "", ("", "serve"))
        return None if extra == "serve" else how_to_install(extra)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"plumbline {__version__}")
        raise typer.Exit


def _missing(name: str, extra: str) -> Any:
    def command() -> None:
        raise PlumblineError(f"{name} is not installed here: {how_to_install(extra)}.")

    return command


def main() -> None:
    """Entry point of the ``plumbline`` command."""
    build()(prog_name="plumbline")
