"""What a card says of a manifest: the right figures, and a warning for each thing to be careful with, only then."""

from __future__ import annotations

import pytest

from service.card.content import card_of
from service.card.facts import chosen, ranked, served_row
from service.card.sentences import duration, headline, sentences
from service.card.tables import candidate_table, class_tables, latency_table, quality_table, stage_table
from service.card.warnings import warnings_of
from service.contract.bundle import Calibration, Challenge, Champion, ClassChange, Latency, Manifest, Stage, Variant
from tests.manifests import (
    CHOSEN,
    CPU,
    FP16,
    FP16_BYTES,
    FP32_BYTES,
    INT8,
    INT8_BYTES,
    latencies,
    manifest,
    quality,
    search,
)


def said(given: Manifest) -> str:
    return "\n".join(sentences(given))


def test_the_sentences_tell_the_whole_story_in_order() -> None:
    told = sentences(manifest())
    starts = [
        "A single-label text",
        "Pruned to 41 attention heads and 5,012 feed-forward neurons, 1.62 times as fast",
        "On the CPU it is served in int8 (dynamic int8 per channel): 18.3 MB, 1/5.0 of the fp32 model.",
        "14 candidates were tried in 7 min 12 s on 800 rows",
        "On the CPU a single text takes 1.77 ms",
        "On the CPU: accuracy 0.9025",
    ]
    assert [one[: len(start)] for one, start in zip(told, starts, strict=True)] == starts
    assert f"because the time budget was used up. The choice fell on: {CHOSEN}." in told[3]
    assert "4.3 times as fast as onnxruntime fp32 (7.62 ms)" in told[4]
    assert "1.6 times as fast as unpruned int8 (2.75 ms)" in told[4]
    assert "accuracy 0.9025 -> 0.9002 on 8720 rows" in told[5]


def made_by(name: str, **details: object) -> Stage:
    return Stage(name=name, applied=True, seconds=9, details={"scheme": "dynamic int8 per channel", **details})


def test_what_an_earlier_search_found_is_not_called_searched() -> None:
    told = said(manifest(search=None, pipeline=(made_by("plan", heads_kept=[2, 1], neurons_kept=[7, 5]),)))
    assert "candidates" not in told
    assert "Pruned to 3 attention heads and 12 feed-forward neurons; what that cost" in told
    assert "served in int8 (dynamic int8 per channel): 18.3 MB" in told
    assert "It was made as the search for an earlier version had found best." in told


def test_a_model_that_was_not_pruned() -> None:
    assert "Nothing was pruned." in sentences(manifest(pipeline=(made_by("search", heads_kept=[], neurons_kept=[]),)))


def test_a_layer_may_have_lost_all_its_heads() -> None:
    told = said(manifest(pipeline=(made_by("search", heads_kept=[0, 2], neurons_kept=[4, 4]),)))
    assert "Pruned to 2 attention heads and 8 feed-forward neurons" in told


def test_without_a_stage_that_says_how_it_was_made_the_rest_is_said_all_the_same() -> None:
    told = sentences(manifest(search=None, pipeline=()))
    assert told[1] == "On the CPU it is served in int8: 18.3 MB, 1/5.0 of the fp32 model."
    assert len(told) == 4


def test_a_file_of_the_same_size_is_not_called_smaller() -> None:
    files = manifest().files | {INT8: manifest().files[INT8].model_copy(update={"bytes": FP32_BYTES})}
    assert "On the CPU it is served in fp32: 90.9 MB." in said(manifest(variants=IN_FP32, files=files, pipeline=()))


def test_a_search_that_chose_nothing() -> None:
    none = [one.model_copy(update={"chosen": False}) for one in search().candidates]
    assert "None of them was chosen." in said(manifest(search=search(candidates=none)))


def test_the_served_row_is_the_last_one_with_the_size_of_the_file() -> None:
    as_unpruned = [row.model_copy(update={"bytes": INT8_BYTES}) for row in latencies()]
    row = served_row(manifest(latency=as_unpruned), "cpu")
    assert row is not None
    assert row.name == "cpu variant"
    assert served_row(manifest(latency=latencies()[:2]), "cpu") is None


def test_the_headline_has_speed_accuracy_and_size() -> None:
    assert [figure for figure, _ in headline(manifest())] == ["4.3x", "-0.23", "18.3 MB"]
    assert [figure for figure, _ in headline(manifest(latency=()))] == ["-0.23", "18.3 MB"]


def test_times_too_short_to_be_measured_give_no_ratio() -> None:
    zero = [one.model_copy(update={"p50_ms": 0.0, "p50_range_ms": None}) for one in latencies()]
    given = manifest(latency=zero)
    assert "times as fast as onnxruntime" not in said(given)
    assert [row[2] for row in latency_table(given).rows] == [""] * 5


def test_candidates_are_numbered_from_the_fastest_and_the_choice_stands_out() -> None:
    table = candidate_table(search())
    assert [row[0] for row in table.rows] == [str(place) for place in range(1, 15)]
    assert [row[1] for row in table.rows] == [one.name for one in ranked(search())]
    times = [float(row[3]) for row in table.rows]
    assert times == sorted(times)
    assert [table.rows[place][1:3] for place in table.marked] == [(CHOSEN, "chosen")]
    assert sum(row[2] == "front" for row in table.rows) == sum(one.front for one in search().candidates) - 1


def test_speeds_are_against_fp32_and_what_is_served_stands_out() -> None:
    table = latency_table(manifest())
    assert {row[0]: row[5] for row in table.rows}["onnxruntime fp32"] == "1.00x"
    assert [table.rows[place][0] for place in table.marked] == ["cpu variant"]
    assert table.note == f"Batch 1, 1 thread, 24 tokens (median), {CPU}."


def test_each_variant_has_a_column_of_quality() -> None:
    table = quality_table(manifest(quality={"cpu": quality(), "cuda": quality(calibration=None)}))
    rows = {row[0]: row[1:] for row in table.rows}
    assert table.columns == ("", "cpu", "cuda")
    assert rows["calibration error, exported"] == ("0.048", "")
    assert "calibration error, exported" not in [row[0] for row in quality_table(bare()).rows]


def bare() -> Manifest:
    """As bundles were before calibration, classes and a search were recorded."""
    return manifest(search=None, quality={"cpu": quality(calibration=None, classes={})})


def test_classes_are_named_by_variant_only_where_there_are_several() -> None:
    assert [table.title for table in class_tables(manifest())] == ["Recall by label"]
    both = manifest(quality={"cpu": quality(), "cuda": quality()})
    assert [table.title for table in class_tables(both)] == ["Recall by label, cpu", "Recall by label, cuda"]
    assert class_tables(bare()) == []


def test_lists_and_deep_details_of_a_stage_stay_in_the_manifest() -> None:
    details = stage_table(manifest()).rows[0][2]
    assert details == "scheme: dynamic int8 per channel; quantized: 30; candidates: 14; fused: Attention 6"


def test_a_challenge_comes_first() -> None:
    lost = Challenge(
        champion=Champion(version="2", digest="d"), accepted=False, reasons=("worse",), figures={"old": {"rows": 9}}
    )
    table = card_of(manifest(challenge=lost)).tables[0]
    assert table.title == "Against version 2: rejected"
    assert table.rows == (("reason", "worse"), ("old", "rows 9"))


@pytest.mark.parametrize(("seconds", "expected"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (372, "6 min 12 s")])
def test_durations_as_people_say_them(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected


def test_nothing_to_be_careful_with_on_the_machine_that_measured() -> None:
    assert warnings_of(manifest(), here="avx512_vnni") == []


FELL = {
    "refund": ClassChange(rows=40, baseline=0.90, exported=0.75),
    "late": ClassChange(rows=8, baseline=1, exported=0),
}
SLOW = [row.model_copy(update={"p50_ms": 8.0}) if row.name == "cpu variant" else row for row in latencies()]
IN_FP32 = {"cpu": Variant(file=INT8, precision="fp32", instruction_set="avx2", golden_atol=0.05)}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"quality": {"cpu": quality(verdict="fail")}}, "the accuracy gate failed"),
        ({"quality": {"cpu": quality(verdict="inconclusive")}, "unproven": True}, "cpu: unproven."),
        ({"quality": {"cpu": quality(majority=0.95)}}, "no better than the same answer to every text"),
        ({"quality": {"cpu": quality(trained_on=64)}}, "64 eval rows also occur in the training data"),
        ({"quality": {"cpu": quality(missed={"refund": 12, "late": 3})}}, "never right on refund (12 rows), late (3"),
        ({"quality": {"cpu": quality(batch_flip_rate=0.006)}}, "0.60% of the labels change"),
        (
            {"quality": {"cpu": quality(calibration=Calibration(baseline=0.04, exported=0.07, bins=15))}},
            "grew from 0.040 to 0.070",
        ),
        ({"quality": {"cpu": quality(classes=FELL)}}, "fell by 10 points or more: refund (0.90 -> 0.75 on 40 rows)."),
        ({"latency": SLOW}, "int8 is no faster than fp32 on this processor (8.00 against 7.62 ms)"),
        ({"variants": IN_FP32}, "nothing is quantized"),
        ({"search": search(rows=199)}, "compared on 199 rows only"),
        ({"search": search(max_drop=0.1)}, "expected to lose 0.20 points, more than the 0.1 allowed"),
    ],
)
def test_one_warning_for_each_thing_to_be_careful_with(changed: dict[str, object], expected: str) -> None:
    found = warnings_of(manifest(**changed), here="avx512_vnni")
    assert len(found) == 1
    assert expected in found[0]


@pytest.mark.parametrize(
    "harmless",
    [
        {"quality": {"cpu": quality(batch_flip_rate=0.005)}},
        {"quality": {"cpu": quality(calibration=Calibration(baseline=0.05, exported=0.01, bins=15))}},
        {"search": search(rows=200, max_drop=0.25)},
        {"search": None},
        {"latency": ()},
    ],
)
def test_no_warning_short_of_the_limits(harmless: dict[str, object]) -> None:
    assert warnings_of(manifest(**harmless), here="avx512_vnni") == []


def test_many_fallen_labels_are_not_all_named() -> None:
    classes = {f"label{number}": ClassChange(rows=50, baseline=0.9, exported=0.5) for number in range(9)}
    (found,) = warnings_of(manifest(quality={"cpu": quality(classes=classes)}), here="avx512_vnni")
    assert "label4" in found
    assert "label5" not in found
    assert found.endswith("and 4 more.")


@pytest.mark.parametrize(
    ("measured", "here", "expected"),
    [
        ("avx512_vnni", None, "8-bit products can overflow"),
        (
            "avx512_vnni",
            "avx2",
            "this machine has avx2: on an x86 processor without VNNI its 8-bit products can overflow",
        ),
        ("avx512_vnni", "amx_int8", "8-bit products are exact here too"),
        ("avx2", "avx512_vnni", "weights keep to 7 bits"),
    ],
)
def test_int8_on_another_instruction_set(measured: str, here: str | None, expected: str) -> None:
    variants = {"cpu": Variant(file=INT8, precision="int8", instruction_set=measured, golden_atol=0.05)}
    (found,) = warnings_of(manifest(variants=variants), here)
    assert expected in found


def test_a_gpu_variant_alone_has_no_warnings_about_int8() -> None:
    cuda = {"cuda": Variant(file=FP16, precision="fp16", instruction_set="sm_90", golden_atol=0.05)}
    row = Latency(
        name="cuda variant",
        p50_ms=0.9,
        p95_ms=1,
        hardware=CPU,
        threads=1,
        batch=1,
        tokens=9,
        bytes=FP16_BYTES,
    )
    given = manifest(variants=cuda, quality={"cuda": quality()}, search=None, latency=(*latencies(), row))
    assert warnings_of(given) == []
    assert "On the GPU it is served in fp16: 45.6 MB, 1/2.0 of the fp32 model." in said(given)
    assert chosen(given) is None
