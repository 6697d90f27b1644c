"""News of the model repository."""

from __future__ import annotations

from collections.abc import Iterator

import orjson
import pytest

from monitoring.delivery.model_events import live_digest, watch_versions
from monitoring.delivery.outbox import Target
from monitoring.state import StateStore
from service.contract.bundle import MANIFEST, Bundle, Challenge, Champion
from service.contract.repository import set_live
from tests.monitoring.world import World

TARGETS = (Target("webhook", "http://127.0.0.1:9/"),)


@pytest.fixture
def store(world: World) -> Iterator[StateStore]:
    found = StateStore(world.state)
    yield found
    found.close()


def look(store: StateStore, world: World) -> list[tuple[str, str, bool]]:
    news = watch_versions(store, world.repo, TARGETS, 1000.0)
    return [(row.event.type, row.event.data.model.version, row.retrained) for row in news]


def judged(champion: Bundle, *, accepted: bool) -> Challenge:
    return Challenge(
        champion=Champion(version=champion.manifest.version, digest=champion.digest),
        accepted=accepted,
        reasons=("new rows: 0.60 to 0.84",),
        figures={"old": 0.88, "new": 0.84},
    )


def test_what_is_there_at_the_first_start_is_no_news(store: StateStore, world: World) -> None:
    bundle = world.publish()
    assert look(store, world) == []
    assert look(store, world) == []
    assert live_digest(store, "tickets") == bundle.digest


def test_an_accepted_challenger_that_goes_live_is_published_with_its_figures(store: StateStore, world: World) -> None:
    champion = world.publish()
    look(store, world)
    challenger = world.publish(challenge=judged(champion, accepted=True), seed=2)
    assert look(store, world) == [("plumbline.model.published", "2", True)]
    row = store.row("SELECT body FROM events")
    assert row is not None
    data = orjson.loads(row["body"])["data"]
    assert data["champion"] == {"model": "tickets", "version": "1", "digest": champion.digest}
    assert data["model"]["digest"] == challenger.digest
    assert data["figures"] == {"old": 0.88, "new": 0.84}
    assert data["reasons"] == ["new rows: 0.60 to 0.84"]
    assert look(store, world) == []


def test_a_rejected_challenger_is_told_once_and_is_not_live(store: StateStore, world: World) -> None:
    champion = world.publish()
    look(store, world)
    world.publish(live=False, challenge=judged(champion, accepted=False), seed=2)
    assert look(store, world) == [("plumbline.model.rejected", "2", True)]
    assert look(store, world) == []
    assert live_digest(store, "tickets") == champion.digest


def test_a_rollback_is_published_without_counting_as_a_retrain(store: StateStore, world: World) -> None:
    world.publish()
    world.publish(seed=2)
    look(store, world)
    set_live(world.repo, "tickets", "1")
    assert look(store, world) == [("plumbline.model.published", "1", False)]


def test_a_version_that_waits_to_go_live_is_no_news(store: StateStore, world: World) -> None:
    world.publish()
    look(store, world)
    world.publish(live=False, seed=2)
    assert look(store, world) == []


def test_a_first_model_after_the_first_start_is_news(store: StateStore, world: World) -> None:
    assert look(store, world) == []
    world.publish()
    assert look(store, world) == [("plumbline.model.published", "1", False)]


def test_a_damaged_version_is_logged_and_looked_at_again(
    store: StateStore, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.publish()
    look(store, world)
    bundle = world.publish(seed=2)
    manifest = bundle.file(MANIFEST)
    whole = manifest.read_bytes()
    manifest.write_bytes(whole[:50])
    assert look(store, world) == []
    assert str(manifest) in caplog.text
    manifest.write_bytes(whole)
    assert look(store, world) == [("plumbline.model.published", "2", False)]
