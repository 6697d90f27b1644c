"""Does the server do on this GPU what it must? Prints the figures, and adds them to a file of benchmarks.

    python -m loadtest.gpu_check MODELS --name NAME --texts CSV [--append docs/benchmarks.md]

The model is exported with ``--target both``. Checked are: the CUDA variant says what the CPU variant says, but for what
the export found each of them to change of the checkpoint's labels, and half a point; it says the same in padded
batches; a server that was told ``--device cuda`` refuses to start where there is none; requests of 32 texts are
answered at 80 % or more of the speed of the bare loop on the same GPU, tokenizer and session, by one worker or by
several; inputs are in page-locked memory. What CUDA graphs with bound inputs and outputs gain is shown, and what a
second session would bring.
Exit code 3 if something is not as it must be, 2 without a GPU.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from loadtest.client import closed_loop
from loadtest.endurance import Row
from loadtest.server import serving
from service.contract.bundle import Bundle, VariantName
from service.contract.dataset import read_dataset
from service.contract.repository import live_bundle
from service.engine import Engine, EngineError
from service.tasks.of_bundle import tokenizer_of
from service.tasks.tokenizer import TextTokenizer

TEXTS = 32  # in a request, and in a batch of the bare loop
USERS = 8  # of each worker
WORKERS = (1, 2, 4)
_LEAST_SHARE = 0.8
_MORE_FLIPS = 0.005  # than the export found: these may be other texts
_MOST_FLIPS = 0.02


@dataclass(frozen=True)
class Bare:
    """A variant without a server."""

    tokenizer: TextTokenizer
    engine: Engine

    @classmethod
    def of(cls, bundle: Bundle, variant: VariantName) -> Bare:
        """:raises EngineError: if the variant cannot run here."""
        manifest = bundle.manifest
        if variant not in manifest.variants:
            raise EngineError(f"{bundle.path} has no variant for {variant}. Export with --target both.")
        engine = _engine(bundle, variant, graphs=False)
        engine.warm_up()
        return cls(tokenizer_of(bundle), engine)

    def labels(self, texts: Sequence[str], batch: int) -> npt.NDArray[np.int64]:
        """The most probable label of each text, run in batches of this size."""
        tokens = self.tokenizer(texts)
        parts = [self.engine.run(tokens[start : start + batch]).logits for start in range(0, len(tokens), batch)]
        return np.asarray(np.concatenate(parts).argmax(axis=1), dtype=np.int64)

    def per_second(self, texts: Sequence[str], seconds: float) -> float:
        """Texts a second in batches of 32, tokenizing included."""
        done, started = 0, time.perf_counter()
        while (spent := time.perf_counter() - started) < seconds:
            batch = texts[done % len(texts) :][:TEXTS]
            self.engine.run(self.tokenizer(batch))
            done += len(batch)
        return done / spent


def _engine(bundle: Bundle, variant: VariantName, *, graphs: bool) -> Engine:
    manifest = bundle.manifest
    file = bundle.file(manifest.variants[variant].file)
    return Engine(
        file, device=variant, threads=1, max_length=manifest.max_length, pad_id=manifest.pad_id, graphs=graphs
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--append", type=Path, help="file of benchmarks to add the figures to")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument(
        "--device", choices=["cuda", "cpu"], default="cuda", help="cpu tries this program without a GPU"
    )
    options = parser.parse_args()
    texts = read_dataset(options.texts, label_column=None).single_texts
    try:
        rows = check(options.models, options.name, texts, options.device, options.rounds, options.seconds)
    except EngineError as error:
        print(f"gpu-check: {error}", file=sys.stderr)
        sys.exit(2)
    for row in rows:
        print(f"{row.what:<48} {row.measured:>26}   {row.must:<12} {'' if row.holds else 'MISSED'}", flush=True)
    if options.append is not None:
        with options.append.open("a", encoding="utf-8") as file:
            file.write(section(rows, hardware() if options.device == "cuda" else "no GPU"))
    sys.exit(0 if all(row.holds for row in rows) else 3)


def check(models: Path, name: str, texts: Sequence[str], device: VariantName, rounds: int, seconds: float) -> list[Row]:
    """:raises EngineError: if the variant cannot run on the device."""
    bundle = live_bundle(models, name)
    bare = Bare.of(bundle, device)
    rows = [*_agreement(bare, Bare.of(bundle, "cpu"), texts, _flips(bundle, device)), _refusal(models)]
    pinned = bare.engine.pinned
    rows.append(Row("inputs in page-locked memory", "yes" if pinned else "no", "yes", pinned or device == "cpu"))
    rows += _graphs(bare, bundle, device, texts, rounds)
    rows.append(_sessions(bare, Bare.of(bundle, device), texts, rounds, seconds))
    return [*rows, *_throughput(models, bare, texts, device, rounds, seconds)]


def _flips(bundle: Bundle, device: VariantName) -> float:
    """Share of the labels that the two variants may differ in: both together, of those that the checkpoint gave."""
    quality = bundle.manifest.quality
    return sum(quality[variant].flips / quality[variant].rows for variant in {device, "cpu"} if variant in quality)


def _agreement(bare: Bare, cpu: Bare, texts: Sequence[str], explained: float) -> list[Row]:
    alone = bare.labels(texts, 1)
    agreement = float((alone == cpu.labels(texts, 1)).mean())
    least = 1 - explained - _MORE_FLIPS
    flips = float((alone != bare.labels(texts, TEXTS)).mean())
    return [
        Row(
            f"same label as on the CPU, {len(texts)} texts",
            f"{agreement:.2%}",
            f">= {least:.1%}",
            agreement >= least,
        ),
        Row("other label in a batch of 32", f"{flips:.2%}", "<= 2 %", flips <= _MOST_FLIPS),
    ]


def _refusal(models: Path) -> Row:
    """A server for CUDA that sees no GPU."""
    command = [sys.executable, "-m", "plumbline", "serve", f"--repo={models}", "--device=cuda", "--port=0"]
    try:
        code = subprocess.run(
            command, env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}, capture_output=True, timeout=120, check=False
        ).returncode
    except subprocess.TimeoutExpired:
        return Row("--device cuda without a GPU", "it serves", "refused", holds=False)
    return Row("--device cuda without a GPU", f"refused, exit code {code}", "refused", holds=code != 0)


def _graphs(bare: Bare, bundle: Bundle, device: VariantName, texts: Sequence[str], rounds: int) -> list[Row]:
    """Batches of one text and of 32 as CUDA graphs with bound memory, in turns with plain runs."""
    captured = _engine(bundle, device, graphs=True)
    rows = []
    for size in (1, TEXTS):
        tokens = bare.tokenizer(texts[:size])
        plain, graph = bare.engine.run(tokens).logits, captured.run(tokens).logits
        ratios = [
            _seconds(lambda batch=tokens: bare.engine.run(batch)) / _seconds(lambda batch=tokens: captured.run(batch))  # type: ignore[misc]
            for _ in range(rounds)
        ]
        same = np.array_equal(plain.argmax(axis=1), graph.argmax(axis=1))
        measured = f"{statistics.median(ratios):.2f} times as fast" + ("" if same else ", other labels")
        rows.append(Row(f"a batch of {size} as a CUDA graph, inputs bound", measured, "same labels", same))
    return rows


def _sessions(bare: Bare, other: Bare, texts: Sequence[str], rounds: int, seconds: float) -> Row:
    """Whether a second session, on a thread of its own, would bring more texts through the same GPU."""
    ratios = []
    with ThreadPoolExecutor(2) as threads:
        for _ in range(rounds):
            alone = bare.per_second(texts, seconds / 2)
            both = threads.map(lambda one: one.per_second(texts, seconds / 2), (bare, other))
            ratios.append(sum(both) / alone)
    return Row("two sessions at once", f"{statistics.median(ratios):.2f} times the texts of one", "", holds=True)


def _seconds(call: Callable[[], object], times: int = 50) -> float:
    started = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - started) / times


def _throughput(
    models: Path, bare: Bare, texts: Sequence[str], device: VariantName, rounds: int, seconds: float
) -> list[Row]:
    """A server with each number of workers in turns with the bare loop; one of the numbers must do."""
    requests = [list(texts[start : start + TEXTS]) for start in range(0, len(texts) - TEXTS + 1, TEXTS)]
    shares, measured = [], []
    for workers in WORKERS:
        ratios, rates = [], []
        with serving(models, pinned=False, PLUMBLINE_DEVICE=device, PLUMBLINE_WORKERS=str(workers)) as server:
            for _ in range(rounds):
                alone = bare.per_second(texts, seconds / 2)
                found = closed_loop(f"{server.url}/predict", requests, USERS * workers, seconds)
                if set(found.statuses) != {200}:
                    sys.exit(f"answers other than 200: {dict(found.statuses)}")
                rates.append(TEXTS * found.rate)
                ratios.append(rates[-1] / alone)
        shares.append(statistics.median(ratios))
        measured.append(f"{statistics.median(rates):.0f} texts/s, {shares[-1]:.0%} of bare")
    best = shares.index(max(shares))
    return [
        Row(
            f"requests of {TEXTS} texts, {workers} worker{'s' * (workers > 1)}",
            measured[place],
            ">= 80 %" if place == best else "",
            place != best or shares[best] >= _LEAST_SHARE,
        )
        for place, workers in enumerate(WORKERS)
    ]


def hardware() -> str:
    """The name of the first GPU and its driver, as NVIDIA's tool says."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader", "--id=0"]
    name, driver = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip().split(", ")
    return f"{name}, driver {driver}"


def section(rows: Sequence[Row], what: str) -> str:
    """Markdown for a file of benchmarks."""
    lines = [f"| {row.what} | {row.measured} | {row.must} |" for row in rows]
    head = f"\n### {what}: {datetime.now(UTC):%Y-%m-%d}, ONNX Runtime {ort.__version__}\n\n"
    return head + "| | measured | must be |\n|---|---|---|\n" + "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
