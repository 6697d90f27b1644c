"""The card's two forms: Markdown that no label can break, and a page that needs nothing else; and the plot in it."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from itertools import combinations
from xml.etree import ElementTree

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.card.html import as_html, mistakes
from export.card.markdown import as_markdown
from export.card.plot import HEIGHT, WIDTH, Axis, axes, pareto_plot, place_labels
from service.card.content import card_of
from service.card.facts import ranked
from service.contract.bundle import Challenge, Champion, ClassChange, Manifest
from service.tasks import SINGLE_LABEL
from tests.manifests import CHOSEN, manifest, quality, search

HOSTILE = "<b>x</b>|y\n# z"


class Reader(HTMLParser):
    """Collects the tags of a page and fails on one that is closed out of turn."""

    VOID = ("meta", "link", "line", "path", "circle")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(given: Manifest) -> Reader:
    reader = Reader()
    reader.feed(as_html(card_of(given), given))
    assert reader.open == []
    return reader


def hostile() -> Manifest:
    labels = ("fine", HOSTILE)
    return manifest(
        labels=labels, quality={"cpu": quality(classes={HOSTILE: ClassChange(rows=9, baseline=1, exported=1)})}
    )


def test_the_page_holds_every_sentence_warning_and_table() -> None:
    card, text = card_of(manifest()), "".join(read(manifest()).text)
    assert all(sentence in text for sentence in (*card.sentences, *card.warnings))
    assert all(table.title in text for table in card.tables)
    assert card.warnings


def test_the_page_stands_alone() -> None:
    page = as_html(card_of(manifest()), manifest())
    page = re.sub(r'<link rel="icon" href="data:[^"]*">', "", page)
    assert not re.search(r"<script|<link|@import|url\(|src=|href=|https?:", page)
    assert "prefers-color-scheme: dark" in page


def test_a_search_is_plotted_and_without_one_there_is_no_plot() -> None:
    assert read(manifest()).tags.count("svg") == 1
    assert "svg" not in read(manifest(search=None)).tags
    assert "svg" not in read(manifest(search=search(candidates=()))).tags


def test_where_the_model_is_wrong_is_shown_the_surest_first() -> None:
    rows = [
        {"text": text, "text_pair": None, "label": label, "target": target, "confidence": confidence}
        for text, label, target, confidence in (
            ("right", "fine", "fine", 0.99),
            ("unsure", "fine", "bad", 0.6),
            ("sure", "fine", "bad", 0.9),
            ("unknown", "fine", None, 0.99),
            ("<i>tag</i>" * 100, "", "bad", 0.7),
        )
    ]
    wrong = mistakes(pa.Table.from_pylist(rows), SINGLE_LABEL)
    assert [one.confidence for one in wrong] == [0.9, 0.7, 0.6]
    page = as_html(card_of(manifest()), manifest(), wrong)
    shown = page[page.index("Where it is wrong") :]
    assert shown.index("sure") < shown.index("unsure")
    assert "<i>" not in page
    assert "…" in shown
    assert "Where it is wrong" not in as_html(card_of(manifest()), manifest())


def test_a_retrain_is_headed_by_what_it_was_for() -> None:
    contest = {"champion": 0.59, "challenger": 0.91}
    challenge = Challenge(
        champion=Champion(version="1", digest="d"), accepted=True, reasons=("better",), figures={"new": contest}
    )
    assert card_of(manifest(challenge=challenge)).headline[0][0] == "0.59 to 0.91"


def test_no_label_becomes_markup() -> None:
    assert "b" not in read(hostile()).tags
    assert "<b>" not in as_markdown(card_of(hostile()))


def test_markdown_tables_have_as_many_cells_in_every_row() -> None:
    for block in as_markdown(card_of(hostile())).split("\n\n"):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in rows}) <= 1
    assert "# z" not in as_markdown(card_of(hostile())).splitlines()


def test_markdown_says_what_the_page_says() -> None:
    card, text = card_of(manifest()), as_markdown(card_of(manifest()))
    assert all(sentence in text for sentence in (*card.sentences, *card.warnings))
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == [
        "Be careful",
        *(table.title for table in card.tables),
    ]
    assert f"| **7** | **{CHOSEN}** | **chosen** |" in text


def drawn() -> ElementTree.Element:
    figure = pareto_plot(search())
    return ElementTree.fromstring(figure[figure.index("<svg") : figure.index("</svg>") + len("</svg>")])


def test_the_plot_marks_the_front_the_choice_and_what_is_off_the_scale() -> None:
    plot, tried = drawn(), search().candidates
    shapes = [shape for group in plot.findall("g") for shape in group if "point" in (shape.get("class") or "")]
    assert len(shapes) == len(tried)
    assert sum(shape.get("class") == "point on-front" for shape in shapes) == sum(one.front for one in tried)
    assert (
        sum(shape.tag == "path" for shape in shapes) == 2
    )  # 3.4 and 14.9 points lost, beyond the three that are shown
    assert len(plot.findall("./g/circle[@class='ring']")) == 1
    assert len(plot.findall("./line[@class='limit']")) == 1


def test_what_was_chosen_is_drawn_above_all_others() -> None:
    (*others, last) = drawn().findall("g")
    assert "ring" in [shape.get("class") for shape in last]
    assert all(len(group) == 2 for group in others)


def test_the_plot_can_be_read_without_eyes() -> None:
    plot = drawn()
    assert plot.get("role") == "img"
    assert plot.findtext("title") == "Time and accuracy of 14 candidates"
    assert "Chosen: pruned 1.62x, dynamic int8 per channel, 1.76 milliseconds, -0.25 points" in (
        plot.findtext("desc") or ""
    )
    assert (plot.findtext("./g/title") or "").startswith(
        "1. pruned 3.02x, dynamic int8 per channel: 0.94 ms (0.91 to 0.98), -14.90"
    )


def test_points_lie_where_the_axes_say() -> None:
    across, upwards = axes(search())
    assert across.low == 0.0
    fast, slow = ranked(search())[0], ranked(search())[-1]
    assert across(fast.p50_ms) < across(slow.p50_ms) < across.end
    assert upwards(0.0) < upwards(-0.5) < upwards(-3.0)  # pixels count downwards
    assert upwards(-14.9) == upwards.start


def test_one_candidate_without_loss_or_tolerance_can_be_plotted() -> None:
    one = (
        search()
        .candidates[0]
        .model_copy(update={"difference": 0.0, "lower_bound": 0.0, "p50_ms": 0.0, "p50_range_ms": (0.0, 0.0)})
    )
    assert "nan" not in pareto_plot(search(candidates=(one,), max_drop=0.0))


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 3.4, [0, 1, 2, 3]), (-3.2, 0.3, [-3, -2, -1, 0]), (0, 0.05, [0, 0.01, 0.02, 0.03, 0.04, 0.05])],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert Axis(low, high, 0, 100).ticks() == expected


@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e3))
def test_ticks_are_few_and_inside(low: float, span: float) -> None:
    ticks = Axis(low, low + span, 0, 100).ticks()
    assert 2 <= len(ticks) <= 7
    assert all(low - 1e-6 * span <= tick <= low + span * (1 + 1e-6) for tick in ticks)


def test_numbers_stay_in_the_plot_and_off_each_other() -> None:
    across, upwards = axes(search())
    boxes = place_labels([(across(one.p50_ms), upwards(one.difference)) for one in ranked(search())])
    assert all(box.left >= 0 and box.right <= WIDTH and box.top >= 0 and box.bottom <= HEIGHT for box in boxes)
    assert all(one.overlap(other) == 0 for one, other in combinations(boxes, 2))


def test_numbers_of_points_in_one_place_go_to_different_sides() -> None:
    boxes = place_labels([(200.0, 150.0)] * 4)
    assert all(one.overlap(other) == 0 for one, other in combinations(boxes, 2))
