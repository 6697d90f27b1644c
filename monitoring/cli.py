"""The commands ``monitor``, ``drift`` and ``webhook``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.terminal.commands import plumbline, say_next

if TYPE_CHECKING:
    from monitoring.rounds import Judged
    from monitoring.settings import MonitorSettings
    from service.contract.events import DriftData

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]
FailOnDrift = Annotated[
    bool, typer.Option("--fail-on-drift", help="Exit with 3 if the verdict is warning or critical.")
]
Secret = Annotated[
    str | None,
    typer.Option(help="Signing secret whsec_…; else PLUMBLINE_WEBHOOK_SECRET or …_FILE.", show_default=False),
]

webhook = typer.Typer(
    no_args_is_help=True,
    help="""Receive, verify and repeat the monitor's events.

    \b
    Examples:
      plumbline webhook secret > secret.txt
      plumbline webhook listen --port 8002
    """,
)


def monitor(
    repo: Annotated[Path | None, typer.Option(help="The model repository.")] = None,
    log: Annotated[Path | None, typer.Option(help="The folder that the server logs to.")] = None,
    state: Annotated[Path | None, typer.Option(help="Folder for state and reports [LOG/../monitor].")] = None,
    once: Annotated[
        bool, typer.Option("--once", help="Judge everything that is logged now, deliver, and end.")
    ] = False,
    host: Annotated[str | None, typer.Option(help="Address of metrics and reports [127.0.0.1].")] = None,
    port: Annotated[int | None, typer.Option(help="Port of metrics and reports [8001].", min=0, max=65535)] = None,
    fail_on_drift: FailOnDrift = False,
    as_json: Json = False,
) -> None:
    """Watch the log for drift; alert, report and ask for retrains.

    It compares what is logged with what the models were judged on, window by window.

    \b
    Examples:
      plumbline monitor --repo models --log log
      plumbline monitor --repo models --log log --once --fail-on-drift
    """
    from monitoring.settings import MonitorSettings
    from service.contract.errors import InvalidInput, Refused
    from service.contract.repository import model_names
    from service.contract.settings import load_settings
    from service.terminal.logs import log_to_stderr

    settings = load_settings(
        MonitorSettings, repo=repo, log=log, monitor_state=state, monitor_host=host, monitor_port=port
    )
    log_to_stderr(settings.log_format)
    if not settings.log_folder.is_dir() and once:
        raise InvalidInput(f"there is no log at {settings.log_folder}. Give the folder that `plumbline serve` logs to.")
    if once and not model_names(settings.repo):
        raise InvalidInput(f"there is no model in {settings.repo}. Give the repository that `plumbline serve` serves.")
    if not once:
        if fail_on_drift or as_json:
            raise InvalidInput("--fail-on-drift and --json belong to --once; a running monitor sends events.")
        _watch(settings)
        return
    from monitoring.app import run_once
    from monitoring.metrics import Metrics

    judged = run_once(settings, Metrics())
    _print_judged(judged, as_json)
    if not as_json:
        say_next(plumbline("monitor", repo=settings.repo, log=settings.log_folder, state=state))
    drifted = [row for row in judged if row.data.severity in ("warning", "critical")]
    if fail_on_drift and drifted:
        raise Refused(f"drift in {len(drifted)} of {len(judged)} windows.")


def drift(
    bundle: Annotated[Path, typer.Argument(help="Folder of one version: MODELS/NAME/VERSION.")],
    file: Annotated[Path, typer.Argument(help="A sealed log segment, or texts as CSV, JSONL or Parquet.")],
    text_column: Annotated[str, typer.Option(help="Column with the text.")] = "text",
    report: Annotated[Path | None, typer.Option(help="Write an HTML report to this file.")] = None,
    fail_on_drift: FailOnDrift = False,
    as_json: Json = False,
) -> None:
    """Compare a file with what a model was judged on, once.

    Of plain texts only the texts are compared.

    \b
    Examples:
      plumbline drift models/reviews/1 new.csv
      plumbline drift models/reviews/1 new.csv --report drift.html --fail-on-drift
    """
    import orjson

    from service.contract.bundle import read_bundle
    from service.contract.errors import InvalidInput, Refused
    from service.contract.files import write_atomic
    from service.contract.settings import load_settings

    opened = read_bundle(bundle)
    if not file.is_file():
        raise InvalidInput(f"there is no file {file}. Give a sealed log segment, or texts as CSV, JSONL or Parquet.")
    from monitoring.compare import compare, comparison_data
    from monitoring.settings import MonitorSettings
    from monitoring.windows.references import load_reference

    reference = load_reference(opened)
    found = compare(reference, file, load_settings(MonitorSettings).thresholds, text_column)
    data = comparison_data(reference.bundle, file, found)
    if report is not None:
        from monitoring.report import render

        write_atomic(report, render(reference.table, found.rows, data)[0])
        data = data.model_copy(update={"report": str(report)})
    if as_json:
        _print_json({**orjson.loads(data.model_dump_json(by_alias=True)), "texts_only": found.texts_only})
    else:
        _print_decision(data)
        if found.texts_only:
            print("Only the texts were compared: the file has no model outputs.")
        say_next(plumbline("inspect", bundle))
    if fail_on_drift and data.severity in ("warning", "critical"):
        raise Refused(f"{file} has drifted from the reference of {data.model.model} version {data.model.version}.")


@webhook.command()
def secret() -> None:
    """Make a signing secret.

    The same goes to the monitor and to whoever receives its events. Only the secret is on standard output.

    \b
    Examples:
      export PLUMBLINE_WEBHOOK_SECRET=$(plumbline webhook secret)
      plumbline webhook secret > secret.txt   # for PLUMBLINE_WEBHOOK_SECRET_FILE
    """
    from monitoring.settings import new_secret

    print(new_secret())
    print(
        "Give it to the monitor and to the receiver: in PLUMBLINE_WEBHOOK_SECRET, or in a file that "
        "PLUMBLINE_WEBHOOK_SECRET_FILE names.",
        file=sys.stderr,
    )


@webhook.command()
def listen(
    port: Annotated[int, typer.Option(help="Port to listen on; 0 picks a free one.", min=0, max=65535)] = 8002,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    secret: Secret = None,
    count: Annotated[int | None, typer.Option(help="End after this many verified events.", min=1)] = None,
) -> None:
    """Print each verified event as one line of JSON.

    What is not signed with the secret is answered with 401. For each event the command that verifies it once more
    goes to standard error; it holds for five minutes and takes the secret from PLUMBLINE_WEBHOOK_SECRET.

    \b
    Examples:
      export PLUMBLINE_WEBHOOK_SECRET=$(plumbline webhook secret)
      plumbline webhook listen --port 8002
    """
    import shlex
    import threading

    from monitoring.delivery.listen import webhook_server

    events = 0

    def received(body: bytes, headers: Mapping[str, str]) -> None:
        nonlocal events
        print(body.decode(), flush=True)
        again = plumbline(
            "webhook",
            "verify",
            id=headers["webhook-id"],
            timestamp=headers["webhook-timestamp"],
            signature=headers["webhook-signature"],
        )
        print(f"verify: printf %s {shlex.quote(body.decode())} | {again}", file=sys.stderr, flush=True)
        events += 1
        if count is not None and events >= count:
            threading.Thread(target=server.shutdown).start()

    def refused(reason: str) -> None:
        print(f"refused: {reason}", file=sys.stderr, flush=True)

    with webhook_server(host, port, _secrets(secret), received, refused) as server:
        url = f"http://{host}:{server.server_address[1]}"
        print(f"listening on {url}", file=sys.stderr)
        print(f"the monitor sends here with PLUMBLINE_WEBHOOK_URLS={url}", file=sys.stderr, flush=True)
        try:
            server.serve_forever(poll_interval=0.1)
        except KeyboardInterrupt:
            return


@webhook.command()
def verify(
    identity: Annotated[str, typer.Option("--id", help="The webhook-id header.")],
    timestamp: Annotated[str, typer.Option(help="The webhook-timestamp header.")],
    signature: Annotated[str, typer.Option(help="The webhook-signature header.")],
    secret: Secret = None,
) -> None:
    """Check the signature of a delivery.

    Its body is on standard input. The exit code is 3 if it does not hold.
    `plumbline webhook listen` prints this command for each event.

    \b
    Examples:
      plumbline webhook verify --id evt_1 --timestamp 1767225600 \\
        --signature v1,K5oZ… < body.json
    """
    from monitoring.delivery.webhook import verify as check

    headers = {"webhook-id": identity, "webhook-timestamp": timestamp, "webhook-signature": signature}
    check(_secrets(secret), headers, sys.stdin.buffer.read())
    print("the signature holds")


@webhook.command()
def replay(
    state: Annotated[Path, typer.Option(help="The monitor's state folder.")],
    dead: Annotated[bool, typer.Option("--dead", help="Every delivery that was given up.")] = False,
    identity: Annotated[str | None, typer.Option("--id", help="The given-up deliveries of this event.")] = None,
    retrains: Annotated[bool, typer.Option("--retrains", help="Also run retrains again that were given up.")] = False,
) -> None:
    """Make deliveries that were given up due again.

    The running or next monitor sends them. Retrains are left out unless --retrains says otherwise.

    \b
    Examples:
      plumbline webhook replay --state monitor --dead
    """
    import time

    from monitoring.delivery.outbox import replay as again
    from monitoring.state import DATABASE, StateStore
    from service.contract.errors import InvalidInput

    if dead == (identity is not None):
        raise InvalidInput("say what to send again: --dead for everything given up, or --id EVENT.")
    if not (state / DATABASE).is_file():
        raise InvalidInput(f"{state} is not a monitor's state folder: it has no {DATABASE}.")
    store = StateStore(state)
    try:
        count = again(store, time.time(), identity, retrains=retrains)
    finally:
        store.close()
    print(f"{count} deliveries are due again")


def _watch(settings: MonitorSettings) -> None:
    import signal
    import threading

    from monitoring.app import run_forever
    from monitoring.progress import beginning
    from service.terminal.logs import announce

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    run_forever(settings, stop, lambda address: announce(beginning(settings, address), settings.log_format))


def _secrets(secret: str | None) -> tuple[bytes, ...]:
    from monitoring.settings import MonitorSettings
    from service.contract.errors import SettingsError
    from service.contract.settings import load_settings

    secrets = load_settings(MonitorSettings, webhook_secret=secret).secrets
    if not secrets:
        raise SettingsError(
            "there is no secret to verify with: give --secret or PLUMBLINE_WEBHOOK_SECRET, as to the monitor; "
            "`plumbline webhook secret` makes one."
        )
    return secrets


def _print_judged(judged: list[Judged], as_json: bool) -> None:
    if as_json:
        import orjson

        windows = [
            {
                **orjson.loads(row.data.model_dump_json(by_alias=True)),
                "id": row.window,
                "change": row.change,
                "retrain_requested": row.retrain,
            }
            for row in judged
        ]
        _print_json({"windows": windows})
        return
    if not judged:
        print("No window to judge: too few new rows.")
    for row in judged:
        _print_decision(row.data)
        if row.change is not None:
            print(f"drift {row.change}" + (", retrain requested" if row.retrain else ""))


def _print_decision(data: DriftData) -> None:
    print(
        f"{data.model.model} version {data.model.version}, {data.window.rows} rows, "
        f"{data.window.start:%Y-%m-%d %H:%M:%S} to {data.window.end:%Y-%m-%d %H:%M:%S} UTC: {data.severity}"
    )
    print(f"  {'signal':<12} {'effect':>7} {'from':>7} {'p':>9}  {'':7}  direction")
    for signal in data.signals:
        mark = "drifted" if signal.drifted else ""
        print(
            f"  {signal.name:<12} {signal.effect:7.3f} {signal.effect_threshold:7.3f} {signal.p_value:9.2g}  {mark:7}  "
            f"{signal.direction}"
        )
    if data.severity != "none":
        print(f"  {data.reason}")
    if data.accuracy_reference is not None and data.accuracy_estimated is not None:
        low, high = data.accuracy_interval or (data.accuracy_estimated, data.accuracy_estimated)
        print(
            f"  accuracy {data.accuracy_reference:.3f} on the reference, {data.accuracy_estimated:.3f} "
            f"({low:.3f} to {high:.3f}) estimated here" + ("" if data.accuracy_trusted else ", not to be trusted")
        )
    if data.report is not None:
        print(f"  report {data.report}")


def _print_json(content: dict[str, object]) -> None:
    import orjson

    print(orjson.dumps(content).decode())
