"""The numbers of serving in one run: against the same model in a bare loop, against a peer, and under strain.

    python -m loadtest.bench_serving MODELS --name NAME --short CSV [--long CSV] [--pruned MODELS] [--only …]

The server has one core, the client another; the bare loops run on the server's core while it is idle. Short texts are
the rows of ``--short``; the mix is nine to one row of 150 to 220 words of ``--long``. With ``--path /embed --batch 16``
clients send so many texts at once, as those of embeddings do. Everything is on: validation,
metrics, request ids, and a record of every answer. Rounds are interleaved; medians are printed, and ratios to the
length-bucketed bare loop (a window of 64 texts under 512 padded tokens) of the same round. One client and the bare call
have the same texts, a hundred at a time in turns: how long a text takes depends most of all on its length. Exit code 3
if something is not as it must be.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from loadtest.bare import BareLoops, mix, per_second
from loadtest.client import Load, Speed, closed_loop, one_client
from loadtest.endurance import Row, overload, soak, start, switch_and_stop
from loadtest.machine import machine
from loadtest.server import CLIENT_CORE, SERVER_CORE, pin, serving, started
from service.contract.dataset import read_dataset
from service.contract.repository import live_bundle

USERS, _BATCH_USERS = (16, 64), (4, 8)
PARTS = ("speed", "peer", "start", "switch", "overload", "soak")
_SHARES = {("short", 16): 0.82, ("short", 64): 0.88, ("mixed", 16): 0.85, ("mixed", 64): 0.90}
_SHARE_OF_BATCHES = 0.90
_SINGLE_MS = 0.7
_SINGLE_TEXTS, _TURN, _WARM = 1_000, 100, 20
_TIMES_PEER, _ROUNDS_PEER = 10, 5  # times for a pruned bundle


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--short", type=Path, required=True)
    parser.add_argument("--long", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--path", default="/predict")
    parser.add_argument("--batch", type=int, default=1, help="texts of a request, in the part speed")
    parser.add_argument("--only", default=",".join(PARTS), help=f"of {', '.join(PARTS)}; default all")
    parser.add_argument("--checkpoint", type=Path, help="for the peer; default the newest one in the repository")
    parser.add_argument("--pruned", type=Path, help="a repository with a pruned bundle, for the peer")
    parser.add_argument("--overload-seconds", type=float, default=60.0)
    parser.add_argument("--soak-requests", type=int, default=100_000)
    options = parser.parse_args()
    workloads = {"short": read_dataset(options.short, label_column=None).single_texts}
    if options.long is not None:
        workloads["mixed"] = mix(workloads["short"], read_dataset(options.long, label_column=None).single_texts)
    texts = workloads.get("mixed", workloads["short"])
    repositories = [options.models] if options.pruned is None else [options.models, options.pruned]
    parts = {
        "speed": lambda: speed(
            options.models, options.name, workloads, options.rounds, options.seconds, options.path, options.batch
        ),
        "peer": lambda: peer(repositories, options.name, options.checkpoint, texts, options.seconds),
        "start": lambda: start(options.models),
        "switch": lambda: switch_and_stop(options.models, options.name, texts),
        "overload": lambda: overload(options.models, texts, options.overload_seconds),
        "soak": lambda: soak(options.models, texts, options.soak_requests),
    }
    holds = True
    print(machine(), flush=True)
    for part in options.only.split(","):
        for row in parts[part]():
            print(f"{row.what:<48} {row.measured:>26}   {row.must:<12} {'' if row.holds else 'MISSED'}", flush=True)
            holds = holds and row.holds
    sys.exit(0 if holds else 3)


def speed(
    models: Path,
    name: str,
    workloads: Mapping[str, Sequence[str]],
    rounds: int,
    seconds: float,
    path: str,
    batch: int,
) -> list[Row]:
    """Texts answered a second and times, beside those of the bare loops; requests have ``batch`` texts each."""
    bare: dict[tuple[str, str], list[float]] = defaultdict(list)
    alone: dict[str, list[tuple[Speed, float]]] = defaultdict(list)
    speeds: dict[tuple[str, int], list[Speed]] = defaultdict(list)
    loops = BareLoops(live_bundle(models, name))
    with serving(models) as server:
        url = f"{server.url}{path}"
        for number in range(rounds):
            for workload, texts in workloads.items():
                if batch == 1:
                    alone[workload].append(single(url, loops, texts))
                pin(SERVER_CORE)
                bare[workload, "one by one"].append(per_second(loops.one_by_one, texts, seconds / 2))
                bare[workload, "bucketed"].append(per_second(loops.bucketed, texts, seconds / 2))
                pin(CLIENT_CORE)
                sent = texts if batch == 1 else [texts[at : at + batch] for at in range(0, len(texts) - batch, batch)]
                for users in USERS if batch == 1 else _BATCH_USERS:
                    found = _answered(closed_loop(url, sent, users, seconds))
                    speeds[workload, users].append(replace(found, rate=batch * found.rate))
            print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    rows = []
    for workload in workloads:
        one, bucketed = (statistics.median(bare[workload, what]) for what in ("one by one", "bucketed"))
        rows.append(Row(f"{workload}: bare loop one by one, bucketed", f"{one:.0f}, {bucketed:.0f}/s", "", True))
        if batch == 1:
            rows.append(_single_row(workload, alone[workload]))
        rows += [
            _row(workload, users, found, bare[workload, "bucketed"])
            for (of, users), found in speeds.items()
            if of == workload
        ]
    return rows


def single(url: str, loops: BareLoops, texts: Sequence[str]) -> tuple[Speed, float]:
    """One client's speed, and the median milliseconds of the bare call for the same texts."""
    served, called = Load(), list[float]()
    texts = texts[:_SINGLE_TEXTS]
    for place in range(0, len(texts), _TURN):
        turn = texts[place : place + _TURN]
        warm_up = turn[-_WARM:]
        pin(SERVER_CORE)
        loops.single_calls(warm_up)
        called += loops.single_calls(turn)
        pin(CLIENT_CORE)
        one_client(url, warm_up)
        found = one_client(url, turn)
        served.done += found.done
        served.statuses += found.statuses
    rate = 1000 / statistics.mean(taken for _, taken in served.done)
    speed = Speed(rate, served.percentile(50), served.percentile(99), served.statuses)
    return _answered(speed), statistics.median(called)


def _answered(found: Speed) -> Speed:
    if set(found.statuses) != {200}:
        sys.exit(f"answers other than 200: {dict(found.statuses)}")
    return found


def _single_row(workload: str, found: list[tuple[Speed, float]]) -> Row:
    what, rate = _summary(f"{workload}, 1 client", [speed for speed, _ in found])
    over = statistics.median(speed.p50 - bare for speed, bare in found)
    must = f"<= +{_SINGLE_MS} ms" if workload == "short" else ""
    bare = statistics.median(bare for _, bare in found)
    return Row(what, f"{rate}, {over:+.2f} ms to {bare:.2f}", must, not must or over <= _SINGLE_MS)


def _row(workload: str, users: int, found: list[Speed], bucketed: list[float]) -> Row:
    what, rate = _summary(f"{workload}, {users} clients", found)
    share = statistics.median(s.rate / bare for s, bare in zip(found, bucketed, strict=True))
    least = _SHARES.get((workload, users), _SHARE_OF_BATCHES)
    return Row(what, f"{rate}, {share:.0%} of bucketed", f">= {least:.0%}", share >= least)


def _summary(who: str, found: list[Speed]) -> tuple[str, str]:
    rate, p50, p99 = (
        statistics.median(values) for values in zip(*((s.rate, s.p50, s.p99) for s in found), strict=True)
    )
    return f"{who}: p50 {p50:.1f}, p99 {p99:.1f} ms", f"{rate:.0f}/s"


def peer(
    repositories: Sequence[Path], name: str, checkpoint: Path | None, texts: Sequence[str], seconds: float
) -> list[Row]:
    """The bundle of each repository beside FastAPI around a transformers pipeline with the checkpoint, 64 clients."""
    kept = checkpoint or max((repositories[0] / name / "checkpoints").glob("*/"), key=lambda one: one.stat().st_mtime)
    arguments = ["-m", "loadtest.pipeline_server", str(kept), "{port}"]
    with ExitStack() as running:
        servers = [running.enter_context(serving(models)) for models in repositories]
        servers.append(running.enter_context(started(arguments, "/readyz")))
        rounds = [
            [_answered(closed_loop(f"{server.url}/predict", texts, 64, seconds)) for server in servers]
            for _ in range(_ROUNDS_PEER)
        ]
    *ours, theirs = zip(*rounds, strict=True)
    rate, p99 = (statistics.median(values) for values in zip(*((s.rate, s.p99) for s in theirs), strict=True))
    rows = [Row(f"transformers pipeline, 64 clients: p99 {p99:.0f} ms", f"{rate:.0f}/s", "", True)]
    for models, found in zip(repositories, ours, strict=True):
        plan = live_bundle(models, name).manifest.plan
        pruned = plan is not None and bool(plan.steps)
        times = statistics.median(s.rate / their.rate for s, their in zip(found, theirs, strict=True))
        our_p99 = statistics.median(s.p99 for s in found)
        rows += [
            Row(
                f"  {'pruned' if pruned else 'unpruned'} bundle",
                f"{times:.1f} times it",
                f">= {_TIMES_PEER} times" if pruned else "",
                not pruned or times >= _TIMES_PEER,
            ),
            Row("    p99", f"{our_p99:.0f} ms", "below it", our_p99 < p99),
        ]
    return rows


if __name__ == "__main__":
    main()
