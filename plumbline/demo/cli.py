"""The command ``demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    folder: Annotated[
        Path,
        typer.Option("--dir", help="where everything goes: new, empty, or an earlier demonstration, which is replaced"),
    ] = Path("plumbline-demo"),
    keep: Annotated[bool, typer.Option(help="leave the server and the monitor running for a browser")] = False,
    seed: Annotated[int, typer.Option(min=0, help="of the tickets and the training")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="print the figures as one JSON object")] = False,
) -> None:
    """Run the whole loop on made-up support tickets.

    Fine-tune, export, serve, drift, alert, retrain, take over.

    \b
    Examples:
      plumbline demo
      plumbline demo --dir demo --keep
    """
    import json
    from dataclasses import asdict

    from plumbline.demo.demo import run

    try:
        figures = run(
            folder, keep=keep, seed=seed, on_done=lambda done: typer.echo(done.summary()) if not as_json else None
        )
    except KeyboardInterrupt:
        typer.echo(f"interrupted: every process was ended; what they wrote is in {folder}", err=True)
        raise typer.Exit(130) from None
    if as_json:
        typer.echo(json.dumps(asdict(figures)))
