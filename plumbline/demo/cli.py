"""The command ``demo``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from plumbline.demo.demo import Figures


def demo(
    folder: Annotated[
        Path,
        typer.Option("--dir", help="where everything goes: new, empty, or an earlier demonstration, which is replaced"),
    ] = Path("plumbline-demo"),
    keep: Annotated[bool, typer.Option(help="leave the server and the monitor running for a browser")] = False,
    task: Annotated[str, typer.Option(help="intent: what tickets are about; ner: what they name")] = "intent",
    seed: Annotated[int, typer.Option(min=0, help="of the tickets and the training")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="print the figures as one JSON object")] = False,
) -> None:
    """Run the whole loop on made-up support tickets.

    Fine-tune, export, serve, drift, alert, retrain, take over.

    \b
    Examples:
      plumbline demo
      plumbline demo --dir demo --keep
      plumbline demo --task ner
    """
    import json
    from dataclasses import asdict

    from plumbline.demo.demo import SUBJECTS, run
    from service.contract.errors import InvalidInput

    if task not in SUBJECTS:
        raise InvalidInput(f"--task {task!r} is not known; choose {' or '.join(SUBJECTS)}.")

    def show(done: Figures) -> None:
        if not as_json:
            typer.echo(done.summary())

    try:
        figures = run(folder, keep=keep, seed=seed, on_done=show, subject=SUBJECTS[task])
    except KeyboardInterrupt:
        typer.echo(f"interrupted: every process was ended; what they wrote is in {folder}", err=True)
        raise typer.Exit(130) from None
    if as_json:
        typer.echo(json.dumps(asdict(figures)))
