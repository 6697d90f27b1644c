"""The commands ``serve``, ``rollout``, ``key`` and ``inspect``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from service.terminal.commands import plumbline, say_next, to_serve


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
        ServiceSettings,
        repo=repo,
        log=log,
        model=model,
        host=host,
        port=port,
        device=device,
        workers=workers,
        threads=threads,
    )
    live_names(settings.repo)  # a wrong path is told before the server is imported
    from service.http.server import serve as run

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


def key() -> None:
    """Make a random API key and its digest.

    PLUMBLINE_API_KEYS and PLUMBLINE_ADMIN_KEYS take the digest.

    \b
    Examples:
      plumbline key
    """
    from service.http.keys import digest_of_key, new_key

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

    from service.card.terminal import show
    from service.contract.bundle import open_bundle
    from service.contract.hardware import instruction_set

    opened = open_bundle(bundle)
    if as_json:
        typer.echo(json.dumps({"digest": opened.digest, **opened.manifest.model_dump(mode="json")}))
    else:
        show(opened, instruction_set(), Console())
        say_next(to_serve(bundle, opened.manifest))
