"""The bundle: one folder that holds a model version and everything needed to trust it.

``manifest.json`` names every other file with its SHA-256; the manifest's own SHA-256 is the **digest** of the bundle
and stands in every record, response header and metric. Nothing in a bundle is ever unpickled.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from service.contract.errors import BundleError
from service.contract.files import sha256_file
from service.contract.inputs import Input, input_of

MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.json"
REFERENCE = "reference.parquet"
GOLDEN = "golden.jsonl"
SCHEMA_VERSION: Literal[2] = 2

VariantName = Literal["cpu", "cuda"]
Verdict = Literal["pass", "fail", "inconclusive"]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Score = Annotated[float, Field(le=1.0, description="of the task's metric; below 0 where it is worse than a constant")]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Variant(_Model):
    """One ONNX file and what it was made for."""

    file: str
    precision: Literal["fp32", "fp16", "bf16", "int8"]
    instruction_set: str = Field(description="what it was measured on: avx512_vnni, avx2, sm_90 …")
    golden_atol: float = Field(gt=0, description="largest allowed difference of a logit from the golden one")


class Tensor(_Model):
    """A declared model input or output; a string in ``shape`` is a dynamic axis."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


class FileEntry(_Model):
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: Count


class Source(_Model):
    """What it takes to make the same bundle again."""

    checkpoint_sha256: str
    base_model: str
    libraries: dict[str, str]
    seed: int
    arguments: dict[str, JsonValue]


class Stage(_Model):
    """One step of the export pipeline, in order, with what it did or why it was skipped."""

    name: str
    applied: bool
    seconds: float = Field(ge=0)
    details: dict[str, JsonValue] = {}


class Calibration(_Model):
    """Expected calibration error before and after: mean gap of confidence and accuracy over equal-width bins."""

    baseline: Share
    exported: Share
    bins: Count


class ClassChange(_Model):
    """The recall of one label before and after, on the ``rows`` that carry it."""

    rows: Count
    baseline: Share
    exported: Share


class Quality(_Model):
    """The gate's answer for one variant: is it non-inferior to the checkpoint on the evaluation rows?

    ``difference`` is exported minus baseline, in points (0.01 of the metric); ``lower_bound`` is its one-sided 95 %
    confidence bound; the verdict is ``pass`` if the bound is above ``-max_drop``.
    """

    metric: str
    baseline: Score
    exported: Score
    difference: float
    lower_bound: float
    max_drop: float = Field(ge=0)
    verdict: Verdict
    rows: Count
    trained_on: Count = Field(
        default=0, description="eval rows beside these that also occur in training: they do not judge"
    )
    majority: Score = Field(default=0.0, description="what the same answer to all rows would score")
    flips: Count = Field(description="rows whose predicted label differs from the checkpoint's")
    batch_flip_rate: Share = Field(description="share of rows whose label changes when batched with others and padded")
    batched_rows: Count = Field(default=0, description="the rows that this share is of")
    rows_needed: tuple[Count, Count | None] | None = Field(
        default=None, description="eval rows that may, and probably will, settle an inconclusive verdict on this model"
    )
    calibration: Calibration | None = None
    classes: dict[str, ClassChange] = Field(default={}, description="by label, at most the 50 that changed most")
    missed: dict[str, Count] = Field(
        default={}, description="labels that were never right, with their rows; at most 50"
    )


class Latency(_Model):
    """One measured model over interleaved runs; ``p50_range_ms`` is the median's 95 % confidence interval."""

    name: str
    p50_ms: float = Field(ge=0)
    p95_ms: float = Field(ge=0)
    p50_range_ms: tuple[float, float] | None = None
    hardware: str
    threads: Count
    batch: Count
    tokens: Count
    bytes: Count


class Scheme(_Model):
    """How a float32 graph is quantized for the CPU; ``float_nodes`` are multiplications left as they are.

    ``unsigned`` weights have 8 bits everywhere: their products cannot overflow on a processor without VNNI, where
    signed ones keep to 7 bits.
    """

    method: Literal["dynamic", "static", "none"]
    per_channel: bool = True
    unsigned: bool = False
    float_nodes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        if self.method == "none":
            return "float32"
        if self.method == "static":
            return "static int8"
        if self.float_nodes:
            return f"dynamic int8, {len(self.float_nodes)} in float"
        weights = ", unsigned weights" if self.unsigned else ""
        return f"dynamic int8 per {'channel' if self.per_channel else 'tensor'}{weights}"


class PruneStep(_Model):
    """One step of gradual pruning, exact enough to be done again.

    ``heads`` and ``neurons`` have one hexadecimal bit mask a layer (bit i: unit i stays) over the units that the step
    before left. ``train_steps`` optimizer steps of recovery followed, on a schedule for ``planned_steps``.
    """

    speedup: float = Field(gt=0, description="measured against the unpruned int8 model, before recovery")
    heads: tuple[str, ...]
    neurons: tuple[str, ...]
    planned_steps: Count
    train_steps: Count


class Plan(_Model):
    """What was decided for the CPU variant: with the checkpoint, the data and the seed it gives the same file again."""

    steps: tuple[PruneStep, ...] = ()
    scheme: Scheme
    torch_threads: Count = Field(description="sums are split by them, so other numbers give other roundings")


class Candidate(_Model):
    """One model that the search tried: a degree of pruning and a way to quantize, judged on the search rows.

    ``speedup`` is what the pruning aimed at, against the unpruned int8 model (1: not pruned); ``difference`` is in
    points against the checkpoint, as the labels of the search rows have it; ``estimate`` is what it probably is on
    others, with its standard error, by the labels and the checkpoint's own probabilities; ``divergence`` is the mean
    Kullback-Leibler divergence of the answers from the checkpoint's, in nats. ``front`` says that no other candidate
    is both faster and more accurate.
    """

    name: str
    speedup: float = Field(ge=1)
    scheme: str
    accuracy: Score
    difference: float
    lower_bound: float
    estimate: float
    estimate_error: float = Field(ge=0)
    divergence: float = Field(ge=0)
    p50_ms: float = Field(ge=0)
    p50_range_ms: tuple[float, float]
    p95_ms: float = Field(ge=0)
    bytes: Count
    batch_flip_rate: Share = Field(default=0.0, description="as in ``Quality``")
    quantized: Count = Field(description="multiplications in int8 after ONNX Runtime's own optimisation")
    front: bool = False
    chosen: bool = False


class Search(_Model):
    """What was tried for the CPU before one candidate was chosen, and why the search ended.

    ``rows`` are search rows, which were not trained on. If the gate judges by them too, the search is
    ``cross_fitted``: each half of them was judged by a choice that the other half made.
    """

    rows: Count
    cross_fitted: bool = False
    metric: str
    baseline: Score
    max_drop: float = Field(ge=0)
    target_speedup: float | None
    budget_seconds: float = Field(ge=0)
    seconds: float = Field(ge=0)
    candidates: tuple[Candidate, ...]
    ended: str


class Reference(_Model):
    """The profile that monitoring compares with: records of rows that the model was not trained on."""

    rows: Count
    feature_version: int


class Champion(_Model):
    version: str
    digest: str


class Challenge(_Model):
    """How a retrained version was judged against the one that was live; ``accepted`` decides whether it may go live."""

    champion: Champion
    accepted: bool
    reasons: tuple[str, ...]
    figures: dict[str, JsonValue]


class Manifest(_Model):
    """The content of ``manifest.json``, schema version 2."""

    schema_version: Literal[2] = SCHEMA_VERSION
    name: str
    version: str = Field(pattern=r"^[1-9][0-9]*$")
    task: str = Field(description="name of one of service.tasks")
    task_settings: dict[str, bool | int | float | str] = Field(
        default={}, description="what the task was told beside its name"
    )
    paired: bool = Field(default=False, description="whether it reads pairs of texts")
    labels: tuple[str, ...] = Field(min_length=1)
    max_length: int = Field(ge=2, description="tokens, special tokens included; longer texts are truncated")
    pad_id: Count = Field(default=0, description="the token that fills up the shorter rows of a batch")
    created: datetime
    variants: dict[VariantName, Variant] = Field(min_length=1)
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    files: dict[str, FileEntry]
    source: Source
    pipeline: tuple[Stage, ...]
    quality: dict[VariantName, Quality]
    unproven: bool = Field(
        default=False, description="published although the rows cannot show that it is as good as it has to be"
    )
    latency: tuple[Latency, ...]
    search: Search | None = None
    plan: Plan | None = None
    reference: Reference
    challenge: Challenge | None = None

    @model_validator(mode="after")
    def _files_are_listed(self) -> Manifest:
        needed = {TOKENIZER, REFERENCE, GOLDEN, *(variant.file for variant in self.variants.values())}
        if missing := needed - self.files.keys():
            raise ValueError(f"files lacks {', '.join(sorted(missing))}")
        for path in self.files:
            parts = PurePosixPath(path)
            if parts.is_absolute() or ".." in parts.parts or "\\" in path or path == MANIFEST:
                raise ValueError(f"files names {path!r}, which is not a file inside the bundle")
        return self

    def to_json(self) -> bytes:
        """The bytes of ``manifest.json``; their SHA-256 is the digest."""
        return orjson.dumps(self.model_dump(mode="json"), option=orjson.OPT_INDENT_2) + b"\n"


class Golden(_Model):
    """A text, or a pair, and the logits it must give, per variant."""

    text: str
    text_pair: str | None = None
    logits: dict[VariantName, tuple[float, ...]]

    @property
    def input(self) -> Input:
        return input_of(self.text, self.text_pair)


@dataclass(frozen=True)
class Bundle:
    """A bundle whose manifest was read; :func:`open_bundle` has also verified every file."""

    path: Path
    manifest: Manifest
    digest: str

    def file(self, name: str) -> Path:
        return self.path / name

    def golden(self) -> list[Golden]:
        """The golden cases, in file order. :raises BundleError: if the file is damaged."""
        try:
            lines = self.file(GOLDEN).read_bytes().splitlines()
            return [Golden.model_validate_json(line) for line in lines]
        except (OSError, ValidationError) as error:
            raise BundleError(f"{self.file(GOLDEN)} cannot be read: {error}. Export again.") from error


def digest_of(manifest_json: bytes) -> str:
    return hashlib.sha256(manifest_json).hexdigest()


def read_bundle(path: Path) -> Bundle:
    """Read the manifest only, for inspection; files are not verified.

    :raises BundleError: if there is no manifest or it is not of schema version 2.
    """
    try:
        raw = (path / MANIFEST).read_bytes()
    except OSError as error:
        raise BundleError(f"no bundle at {path}: {MANIFEST} cannot be read ({error.strerror}).") from error
    try:
        manifest = Manifest.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors()[0]
        if first["loc"] == ("schema_version",):
            raise BundleError(
                f"{path / MANIFEST} has schema version {first['input']}, this Plumbline reads {SCHEMA_VERSION}: the "
                "bundle was exported by another version. Export the checkpoint again."
            ) from error
        where = ".".join(map(str, first["loc"])) or "the document"
        raise BundleError(
            f"{path / MANIFEST} is not a valid manifest: {where}: {first['msg']}. Export again, or roll back."
        ) from error
    return Bundle(path, manifest, digest_of(raw))


def open_bundle(path: Path) -> Bundle:
    """Read the manifest and verify the size and SHA-256 of every file it names.

    :raises BundleError: naming the first file that is missing, truncated, altered or outside the folder.
    """
    bundle = read_bundle(path)
    root = path.resolve()
    for name, entry in bundle.manifest.files.items():
        try:
            file = (path / name).resolve()
            if not file.is_relative_to(root):
                raise BundleError(f"bundle {path}: {name} leads outside the bundle. Export again.")
            size = file.stat().st_size
            actual = sha256_file(file) if size == entry.bytes else None
        except (OSError, RuntimeError, ValueError) as error:  # the last two: a loop of links, a null character
            raise BundleError(f"bundle {path}: {name} cannot be read ({error}). Export again, or roll back.") from error
        if actual is None:
            raise BundleError(
                f"bundle {path}: {name} has {size} bytes, the manifest says {entry.bytes}. Export again, or roll back."
            )
        if actual != entry.sha256:
            raise BundleError(
                f"bundle digest mismatch in {path}: {name} is {actual[:8]}…, the manifest says {entry.sha256[:8]}…. "
                "Export again, or roll back."
            )
    return bundle


def file_entries(folder: Path) -> dict[str, FileEntry]:
    """Hash every file below ``folder`` except the manifest, for a manifest being written."""
    return {
        file.relative_to(folder).as_posix(): FileEntry(sha256=sha256_file(file), bytes=file.stat().st_size)
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != MANIFEST
    }
