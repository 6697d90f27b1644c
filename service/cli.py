"""The command line. Commands of other packages are found by name, so that the serving image needs none of them."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from service import __version__
from service.contract.commands import plumbline, say_next, to_serve
from service.contract.errors import PlumblineError
from service.contract.install import how_to_install
from service.contract.logs import log_to_stderr
from service.root import Root

# Command: where it lives, and the extra that brings what it needs.
_COMMANDS = {
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
    "config": ("service.cli", "serve"),
    "demo": ("examples.cli", "export,monitor"),
}
_SETTINGS = [("serve", "service.settings", "ServiceSettings"), ("monitor", "monitoring.settings", "MonitorSettings")]


def serve(
    repo: Annotated[Path | None, typer.Option(help="model repository to serve from")] = None,
    log: Annotated[Path | None, typer.Option(help="folder of the inference log")] = None,
    model: Annotated[str | None, typer.Option(help="model that /predict uses when there are several")] = None,
    host: Annotated[str | None, typer.Option(help="address to listen on [127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="port to listen on [8000]")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda [auto]")] = None,
    workers: Annotated[int | None, typer.Option(help="processes on one port [1]")] = None,
    threads: Annotated[int | None, typer.Option(help="inference threads of each; 0 shares the cores [0]")] = None,
) -> None:
    """Serve the live models of a repository over HTTP. Every other setting is a PLUMBLINE_ variable: see config.

    \b
    Examples:
      plumbline serve --repo models --log log
      plumbline serve --repo models --log log --host 0.0.0.0 --workers 4
    """
    from service.contract.repository import live_names
    from service.contract.settings import load_settings
    from service.settings import ServiceSettings

    settings = load_settings(
        ServiceSettings, repo=repo, log=log, model=model, host=host, port=port, device=device, workers=workers,
        threads=threads,
    )  # fmt: skip
    live_names(settings.repo)  # a wrong path is told before the server is imported
    from service.serve import serve as run

    run(settings)


def rollout(
    repo: Annotated[Path, typer.Option(help="the model repository")],
    name: Annotated[str, typer.Option(help="the model's name in it")],
    live: Annotated[str | None, typer.Option(help="version that is to answer")] = None,
    previous: Annotated[bool, typer.Option("--previous", help="go back to the version that was live before")] = False,
    canary: Annotated[str | None, typer.Option(help="version that is to answer a share of the requests")] = None,
    weight: Annotated[
        float | None, typer.Option(help="that share, above 0 and at most 1", show_default="0.1 for a new canary")
    ] = None,
    no_canary: Annotated[bool, typer.Option("--no-canary", help="the live version answers everything")] = False,
    shadow: Annotated[str | None, typer.Option(help="version that is to see copies of the requests")] = None,
    no_shadow: Annotated[bool, typer.Option("--no-shadow", help="no version sees copies")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print what serving.json says then")] = False,
) -> None:
    """Show or change which versions of a model answer.

    Servers follow within a second.

    \b
    Examples:
      plumbline rollout --repo models --name reviews
      plumbline rollout --repo models --name reviews --live 2
      plumbline rollout --repo models --name reviews --canary 3 --weight 0.05
      plumbline rollout --repo models --name reviews --previous
    """
    from service.contract.errors import InvalidInput
    from service.contract.repository import Canary, Serving, change_serving

    if (live and previous) or (canary and no_canary) or (shadow and no_shadow) or (weight is not None and no_canary):
        raise InvalidInput(
            "these exclude each other: --live, --previous; --canary or --weight, --no-canary; --shadow, --no-shadow."
        )

    def canary_after(now: Serving) -> Canary | None:
        held = now.canary
        if canary is not None:
            if canary == now.live:
                raise InvalidInput(f"version {canary} of {name} is live already and answers everything.")
            kept = held.weight if held is not None and held.version == canary else 0.1
            return Canary(version=canary, weight=kept if weight is None else weight)
        if weight is None or no_canary:
            return None if no_canary else held
        if held is None:
            raise InvalidInput(f"--weight is a canary's share, and {name} has none: say which version with --canary.")
        return Canary(version=held.version, weight=weight)

    def shadow_after(now: Serving) -> str | None:
        if shadow == now.live:
            raise InvalidInput(f"version {shadow} of {name} is live already, and sees every request.")
        return shadow or (None if no_shadow else now.shadow)

    def change(now: Serving | None) -> Serving:
        wanted = live if now is None or not previous else now.previous
        if wanted is None and (now is None or previous):
            raise InvalidInput(f"no version of {name} was live before; say which one with --live.")
        serving = Serving(live=wanted or "") if now is None else now
        return Serving(
            live=serving.live,
            previous=serving.previous,
            canary=canary_after(serving),
            shadow=shadow_after(serving),
        ).with_live(wanted or serving.live)

    serving = change_serving(repo, name, change)
    if as_json:
        typer.echo(serving.model_dump_json())
        return
    typer.echo(f"live     {serving.live}")
    if serving.previous:
        typer.echo(f"previous {serving.previous}")
    if serving.canary:
        typer.echo(f"canary   {serving.canary.version}, {serving.canary.weight:.1%} of the requests")
    if serving.shadow:
        typer.echo(f"shadow   {serving.shadow}")
    say_next(plumbline("inspect", repo / name / serving.live))


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


def key() -> None:
    """Make a random API key and its digest.

    PLUMBLINE_API_KEYS and PLUMBLINE_ADMIN_KEYS take the digest.

    \b
    Examples:
      plumbline key
    """
    from service.keys import digest_of_key, new_key

    made = new_key()
    typer.echo(f"key     {made}\ndigest  {digest_of_key(made)}")
    say_next(f"export PLUMBLINE_API_KEYS={digest_of_key(made)}")


def inspect(
    bundle: Annotated[Path, typer.Argument(help="folder of one version: MODELS/NAME/VERSION")],
    as_json: Annotated[bool, typer.Option("--json", help="print the manifest and the digest as JSON")] = False,
) -> None:
    """Verify a bundle and show what it is.

    How good, how fast, how it was made, and what to be careful with.

    \b
    Examples:
      plumbline inspect models/reviews/1
      plumbline inspect models/reviews/1 --json
    """
    from rich.console import Console

    from service.contract.bundle import open_bundle
    from service.contract.hardware import instruction_set
    from service.inspect import show

    opened = open_bundle(bundle)
    if as_json:
        typer.echo(json.dumps({"digest": opened.digest, **opened.manifest.model_dump(mode="json")}))
    else:
        show(opened, instruction_set(), Console())
        say_next(to_serve(bundle, opened.manifest))


def _build() -> typer.Typer:
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

    for name, (module, extra) in _COMMANDS.items():
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
        _, extra = _COMMANDS.get(command or "", ("", "serve"))
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
    _build()(prog_name="plumbline")
