"""The command ``loadtest``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from loadtest.load.result import Result
    from loadtest.load.run import Plan
    from loadtest.load.tables import Table

_RUN = "run"
_DEFAULT_CLIENTS = (1, 16, 64)


class _RunUnlessNamed(TyperGroup):
    """``plumbline loadtest URL`` is ``plumbline loadtest run URL``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("--help",):
            args = [_RUN, *args]
        return super().parse_args(ctx, args)


loadtest = typer.Typer(
    cls=_RunUnlessNamed,
    no_args_is_help=True,
    help="""Measure how much a server takes; compare two measurements.

    Without the name of a command it is `run`.

    \b
    Examples:
      plumbline loadtest http://127.0.0.1:8000 --rate 200 --p99 50ms
      plumbline loadtest compare before.json after.json
    """,
)


@loadtest.command(_RUN)
def run(
    url: Annotated[str, typer.Argument(help="The server, as http://127.0.0.1:8000.", show_default=False)],
    texts: Annotated[
        Path | None, typer.Option(help="CSV, JSONL or Parquet with texts to send. Without it: made-up ones.")
    ] = None,
    text_column: Annotated[str, typer.Option(help="Column with the text.")] = "text",
    protocol: Annotated[str, typer.Option(help="predict, tei, oip, oip-binary, embed or openai.")] = "predict",
    model: Annotated[str | None, typer.Option(help="The model's name, where the server has several.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Texts in each request.")] = 1,
    rate: Annotated[
        list[float] | None,
        typer.Option(help="Open: so many requests a second, whether answered or not. Several: one after the other."),
    ] = None,
    ramp_to: Annotated[float | None, typer.Option(help="The rate at the end, reached in a line.")] = None,
    burst: Annotated[str | None, typer.Option(help="5x2s/10s: five times the rate for 2 of every 10 seconds.")] = None,
    clients: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Closed: so many clients that wait for their answers. [1, 16 and 64]"),
    ] = None,
    find_max: Annotated[bool, typer.Option("--find-max", help="Search the highest rate that keeps --p99.")] = False,
    p99: Annotated[
        str | None, typer.Option(help="Objective, as 50ms: for 99 % of all requests. Exit with 3 if missed.")
    ] = None,
    duration: Annotated[str, typer.Option(help="Time of each load.")] = "20s",
    warm_up: Annotated[str, typer.Option(help="Time before it that is not counted.")] = "2s",
    rounds: Annotated[int, typer.Option(min=1, help="Times that each load is run.")] = 1,
    timeout: Annotated[str, typer.Option(help="After so long a request has failed.")] = "10s",
    key_file: Annotated[Path | None, typer.Option(help="File with the API key; or set PLUMBLINE_LOADTEST_KEY.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that send.")] = 1,
    listen: Annotated[
        str | None, typer.Option(help="HOST:PORT for workers on other machines, instead of starting them here.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of arrivals and texts.")] = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the result here; - is the output.")] = None,
    html_file: Annotated[Path | None, typer.Option("--html", help="Write a page with charts here.")] = None,
) -> None:
    """Send requests to a server and measure its answers.

    Latency counts from the moment a request was meant to start. The word `run` can be left out.

    \b
    Examples:
      plumbline loadtest run http://127.0.0.1:8000 --texts reviews.csv
      plumbline loadtest run http://127.0.0.1:8000 --rate 100 --rate 200 \\
        --p99 50ms --html report.html
      plumbline loadtest run http://127.0.0.1:8000 --find-max --p99 50ms \\
        --json now.json
    """
    from loadtest.load.run import Plan
    from loadtest.load.run import run as run_plan
    from loadtest.load.stage import read_duration

    stages = _stages(rate, clients, ramp_to, burst, duration, warm_up, find_max=find_max)
    plan = Plan(
        url=url,
        protocol=protocol,
        stages=stages,
        model=model,
        texts=texts,
        text_column=text_column,
        batch=batch,
        key_file=key_file,
        timeout=read_duration(timeout),
        p99_ms=1000 * read_duration(p99) if p99 is not None else None,
        find_max=find_max,
        rounds=rounds,
        workers=workers,
        listen=listen,
        seed=seed,
    )
    _check(plan)
    for file in (json_file, html_file):
        _check_writable(file)
    result = run_plan(plan)
    _show(result, json_file, html_file)
    if code := {"missed": 3, "generator": 1}.get(result.verdict):
        raise typer.Exit(code)


def _stages(
    rate: list[float] | None,
    clients: list[int] | None,
    ramp_to: float | None,
    burst: str | None,
    duration: str,
    warm_up: str,
    *,
    find_max: bool,
) -> list[Any]:
    from loadtest.load.stage import Stage, read_burst, read_duration
    from service.contract.errors import InvalidInput

    if (ramp_to is not None or burst is not None) and not rate:
        raise InvalidInput("--ramp-to and --burst change a rate: give one with --rate.")
    if ramp_to is not None and len(rate or []) > 1:
        raise InvalidInput("--ramp-to goes with one --rate, from which it starts.")
    if find_max and (rate or clients):
        raise InvalidInput("--find-max chooses the rates itself: leave out --rate and --clients.")
    if any(one <= 0 for one in [*(rate or []), *([ramp_to] if ramp_to is not None else [])]):
        raise InvalidInput("a rate must be above 0.")
    times: dict[str, Any] = {"seconds": read_duration(duration), "warm_up": read_duration(warm_up, none=True)}
    bursts = read_burst(burst) if burst is not None else None
    open_stages = [Stage(rate=one, ramp_to=ramp_to, burst=bursts, **times) for one in rate or []]
    chosen = clients or ([] if rate else _DEFAULT_CLIENTS)
    return [*(Stage(clients=one, **times) for one in chosen), *open_stages]


def _check(plan: Plan) -> None:
    from loadtest.load.protocols import BY_NAME
    from service.contract.errors import InvalidInput

    if plan.protocol not in BY_NAME:
        described = "; ".join(f"{one.name}: {one.meaning}" for one in BY_NAME.values())
        raise InvalidInput(f"there is no protocol {plan.protocol!r}. There are {described}.")
    if plan.find_max and plan.p99_ms is None:
        raise InvalidInput("--find-max needs the objective that is to be kept, as --p99 50ms.")
    fewest = min((one.clients for one in plan.stages if one.clients is not None), default=plan.workers)
    if fewest < plan.workers and not plan.find_max:
        raise InvalidInput(f"{plan.workers} workers need as many --clients; {fewest} is fewer.")
    if plan.listen is not None and not plan.listen.rpartition(":")[2].isdigit():
        raise InvalidInput(f"{plan.listen!r} is no address; give HOST:PORT, as 0.0.0.0:5557.")


def _check_writable(file: Path | None) -> None:
    """Told before minutes of measuring. :raises InvalidInput: if it cannot be written."""
    from service.contract.errors import InvalidInput

    if file is not None and str(file) != "-" and (file.is_dir() or not file.absolute().parent.is_dir()):
        raise InvalidInput(f"{file} cannot be written: give a file in a folder that exists.")


def _show(result: Result, json_file: Path | None, html_file: Path | None) -> None:
    from loadtest.load import tables

    if html_file is not None:
        from loadtest.load.page import as_html

        html_file.write_text(as_html(result), encoding="utf-8")
    if json_file is not None:
        content = result.model_dump_json(indent=None) + "\n"
        if str(json_file) == "-":
            typer.echo(content, nl=False)
            return
        json_file.write_text(content, encoding="utf-8")
    shown = [tables.latency_table(result), tables.failure_table(result), tables.server_table(result)]
    for table in shown:
        if table.rows:
            _print(table)
    typer.echo(tables.generator_sentence(result))
    for warning in tables.warnings(result):
        typer.echo(warning)
    if sentence := tables.verdict_sentence(result):
        typer.echo(sentence)


def _print(table: Table) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

    grid = Grid(
        caption=table.note,
        caption_justify="left",
        title=table.title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
    )
    for place, column in enumerate(table.columns):
        grid.add_column(column, justify="left" if place in (0, len(table.columns) - 1) else "right", no_wrap=not place)
    for row in table.rows:
        grid.add_row(*(Text(cell) for cell in row))
    Console(width=None if sys.stdout.isatty() else 120).print(grid, "")


@loadtest.command()
def compare(
    before: Annotated[Path, typer.Argument(help="A result of --json.", show_default=False)],
    after: Annotated[Path, typer.Argument(help="Another, of the same loads.", show_default=False)],
    tolerance: Annotated[float, typer.Option(min=0, help="Share that is no difference, whatever can be shown.")] = 0.05,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Say whether the second result is better, worse or no different.

    Exits with 3 if anything got worse.

    \b
    Examples:
      plumbline loadtest compare before.json after.json
      plumbline loadtest compare before.json after.json --tolerance 0.1
    """
    import json
    from dataclasses import asdict

    from loadtest.load.compare import compare as compare_results
    from loadtest.load.compare import overall
    from loadtest.load.result import read_result
    from loadtest.load.tables import comparison_table

    found = compare_results(read_result(before), read_result(after), tolerance)
    verdict = overall(found)
    if as_json:
        figures = [{**asdict(one), "ratio": one.ratio.model_dump()} for one in found]
        typer.echo(json.dumps({"verdict": verdict, "figures": figures}))
    else:
        _print(comparison_table(found))
        typer.echo(verdict)
    if verdict == "worse":
        raise typer.Exit(3)


@loadtest.command()
def worker(
    address: Annotated[str, typer.Argument(help="HOST:PORT of the machine that has --listen.", show_default=False)],
) -> None:
    """Send requests for a load test that another machine runs.

    \b
    Examples:
      plumbline loadtest worker 10.0.0.5:5557
    """
    import os

    from loadtest.load.generator import COMMAND
    from service.contract.errors import InvalidInput

    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise InvalidInput(f"{address!r} is no address; give HOST:PORT, as 10.0.0.5:5557.")
    os.execv(COMMAND[0], [*COMMAND, "--worker", address])  # noqa: S606  no shell is meant
