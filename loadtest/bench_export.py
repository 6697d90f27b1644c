"""What an export gains and costs, over several seeds, against what it must.

    python -m loadtest.bench_export --data FOLDER [--task sst2|clinc150] [--seeds 3] [--time-budget 10m] [--work FOLDER]

FOLDER holds ``sst2/train.csv``, ``sst2/dev.csv``, ``clinc150/train.csv`` and ``clinc150/val.csv``. For each task the
packaged MiniLM is fine-tuned once, on the training rows but 1,000, which are the search rows. Then ``plumbline export``
runs once per seed, and every row of dev (val) is seen by the gate and by nothing else. Speeds are p50 at batch 1 on one
thread, of models that took turns in the same run. Prints one table per task; the exit code is 3 if a number is missed.
With ``--work`` checkpoints and bundles stay there and are not made again.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from loadtest.machine import machine
from service.contract.hardware import instruction_set

SEARCH_ROWS = 1_000
FILES = {"sst2": ("train.csv", "dev.csv"), "clinc150": ("train.csv", "val.csv")}
EPOCHS = {"sst2": 3, "clinc150": 5}
FASTER = {"sst2": 4.0, "clinc150": 3.5}


@dataclass(frozen=True)
class Export:
    """One export: speeds as ratios of p50, accuracy in points, sizes as a ratio, seconds, peak memory in GiB."""

    seed: int
    chosen: str
    verdict: str
    baseline: float
    difference: float
    lower_bound: float
    over_float32: float
    over_torch: float
    over_onnxruntime: float
    over_unpruned: float
    smaller: float
    seconds: float
    peak_gib: float


@dataclass(frozen=True)
class Demand:
    """A number that must be reached: which, by which statistic over seeds, and at least or at most how much."""

    what: str
    value: Callable[[Sequence[Export]], float]
    limit: float
    least: bool
    shown: str

    def line(self, done: Sequence[Export]) -> tuple[str, bool]:
        value = self.value(done)
        met = value >= self.limit if self.least else value <= self.limit
        sign = ">=" if self.least else "<="
        text = f"| {self.what} | {sign} {self.shown.format(self.limit)} | {self.shown.format(value)} | "
        return text + f"{'met' if met else 'MISSED'} |", met


def demands(task: str) -> list[Demand]:
    return [
        Demand("p50 against ORT fp32, unpruned", _median("over_float32"), FASTER[task], True, "{:.2f}x"),
        Demand("accuracy, mean paired difference", _mean("difference"), -0.5, True, "{:+.2f} points"),
        Demand("p50 against the unpruned int8", _median("over_unpruned"), 1.6, True, "{:.2f}x"),
        Demand("fp32 size over exported size", _median("smaller"), 4.5, True, "{:.2f}x"),
        Demand("wall time, longest", _largest("seconds"), 600.0, False, "{:.0f} s"),
        Demand("peak memory, largest", _largest("peak_gib"), 4.0, False, "{:.2f} GiB"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--task", choices=sorted(FILES), action="append", help="one or several; all by default")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--time-budget", default="10m")
    parser.add_argument("--work", type=Path, help="keep checkpoints and bundles here")
    given = parser.parse_args()
    met = True
    with tempfile.TemporaryDirectory() as scratch:
        for task in given.task or list(FILES):
            folder = (given.work or Path(scratch)) / task
            folder.mkdir(parents=True, exist_ok=True)
            met &= bench(task, given.data / task, folder, given.seeds, given.time_budget)
    sys.exit(0 if met else 3)


def bench(task: str, data: Path, folder: Path, seeds: int, budget: str) -> bool:
    """Run one task and print its table; whether all numbers are reached."""
    train, evaluation = (data / name for name in FILES[task])
    learn, search = split(train, folder)
    checkpoint = folder / "checkpoint"
    if not checkpoint.is_dir():
        files = f"--train={learn}", f"--eval={search}", f"--out={checkpoint}"
        plumbline("finetune", *files, f"--epochs={EPOCHS[task]}", "--json")
    done = []
    for seed in range(seeds):
        kept = folder / f"seed{seed}.json"
        if not kept.is_file():
            one = export(checkpoint, learn, search, evaluation, folder / "models", task, seed, budget)
            kept.write_text(json.dumps(asdict(one)))
        done.append(Export(**json.loads(kept.read_text())))
        print(describe(done[-1]), flush=True)
    print(f"\n## {task}: {seeds} seeds, accuracy of the checkpoint {done[0].baseline:.4f}\n")
    print(f"{machine()}\n\n| {instruction_set()} | must | median over seeds | |\n|---|---|---|---|")
    met = True
    for demand in demands(task):
        line, reached = demand.line(done)
        print(line)
        met &= reached
    for name, title in (("over_torch", "torch fp32"), ("over_onnxruntime", "ONNX Runtime's own int8")):
        print(f"| p50 against {title} | | {statistics.median(getattr(one, name) for one in done):.2f}x | |")
    print(flush=True)
    return met


def split(train: Path, folder: Path) -> tuple[Path, Path]:
    """(rows to learn, search rows) as files, drawn with a fixed seed."""
    with train.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    drawn = set(np.random.default_rng(0).choice(len(rows), SEARCH_ROWS, replace=False).tolist())
    paths = folder / "learn.csv", folder / "search.csv"
    for path, wanted in zip(paths, (False, True), strict=True):
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["text", "label"])
            writer.writeheader()
            writer.writerows(row for place, row in enumerate(rows) if (place in drawn) is wanted)
    return paths


def export(
    checkpoint: Path, learn: Path, search: Path, evaluation: Path, repo: Path, name: str, seed: int, budget: str
) -> Export:
    """One ``plumbline export``, timed from outside."""
    started = time.monotonic()
    out, peak = plumbline(
        "export",
        str(checkpoint),
        f"--train={learn}",
        f"--search={search}",
        f"--eval={evaluation}",
        f"--repo={repo}",
        f"--name={name}",
        f"--seed={seed}",
        f"--time-budget={budget}",
        "--not-live",
        "--json",
    )
    seconds = time.monotonic() - started
    manifest = json.loads(out)["manifest"]
    quality, p50 = manifest["quality"]["cpu"], {one["name"]: one["p50_ms"] for one in manifest["latency"]}
    sizes: Mapping[str, int] = {one["name"]: one["bytes"] for one in manifest["latency"]}
    served = p50["cpu variant"]
    return Export(
        seed=seed,
        chosen=next(one["name"] for one in manifest["search"]["candidates"] if one["chosen"]),
        verdict=quality["verdict"],
        baseline=quality["baseline"],
        difference=quality["difference"],
        lower_bound=quality["lower_bound"],
        over_float32=p50["onnxruntime fp32"] / served,
        over_torch=p50["torch fp32"] / served,
        over_onnxruntime=p50["onnxruntime int8"] / served,
        over_unpruned=p50["unpruned int8"] / served,
        smaller=sizes["onnxruntime fp32"] / sizes["cpu variant"],
        seconds=seconds,
        peak_gib=peak,
    )


def plumbline(*arguments: str) -> tuple[bytes, float]:
    """What the command wrote to stdout, and the largest resident memory of the process in GiB."""
    process = subprocess.Popen(
        [sys.executable, "-c", "from plumbline.cli import main; main()", *arguments],
        stdout=subprocess.PIPE,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )
    assert process.stdout is not None
    out = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        raise SystemExit(f"plumbline {arguments[0]} ended with {os.waitstatus_to_exitcode(status)}")
    return out, usage.ru_maxrss / 2**20


def describe(one: Export) -> str:
    return (
        f"seed {one.seed}: {one.chosen}; {one.over_float32:.2f}x ORT fp32, {one.over_unpruned:.2f}x unpruned int8; "
        f"{one.difference:+.2f} points (at least {one.lower_bound:+.2f}, {one.verdict}); "
        f"1/{one.smaller:.1f} of the size; {one.seconds:.0f} s, {one.peak_gib:.2f} GiB"
    )


def _median(name: str) -> Callable[[Sequence[Export]], float]:
    return lambda done: statistics.median(getattr(one, name) for one in done)


def _mean(name: str) -> Callable[[Sequence[Export]], float]:
    return lambda done: statistics.fmean(getattr(one, name) for one in done)


def _largest(name: str) -> Callable[[Sequence[Export]], float]:
    return lambda done: float(max(getattr(one, name) for one in done))


if __name__ == "__main__":
    main()
