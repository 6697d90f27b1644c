"""How the process is set up for a long life."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import uvicorn
import uvloop
from fastapi import FastAPI

from service.http.server import Server, _spare_the_collector
from service.settings import ServiceSettings


@pytest.fixture
def collector() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


@pytest.mark.usefixtures("collector")
def test_the_collector_passes_over_what_is_there_at_start_and_still_finds_cycles_made_later() -> None:
    _spare_the_collector()
    assert gc.get_freeze_count() > 10_000
    found = gc.collect()
    cycle: list[object] = []
    cycle.append(cycle)
    del cycle
    assert gc.collect() >= 1
    assert found < 10_000


def test_many_connections_are_taken_in_a_turn_of_the_event_loop() -> None:
    clients = 64

    async def turns(accepted: int) -> int:
        """Until all have been accepted; nothing turns the loop while they connect."""
        config = uvicorn.Config(answer, port=0, lifespan="off", log_config=None)
        server = Server(config, FastAPI(), ServiceSettings(grace_seconds=0), accepted)
        serving = asyncio.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110  uvicorn has no event for it
            await asyncio.sleep(0)
        address = server.servers[0].sockets[0].getsockname()
        turned = 0
        with ExitStack() as stack:
            for _ in range(clients):
                stack.enter_context(socket.create_connection(address))
            while len(server.server_state.connections) < clients:
                await asyncio.sleep(0)
                turned += 1
        server.should_exit = True
        await serving
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)
        return turned

    async def answer(scope: object, receive: object, send: object) -> None:
        """Nothing is asked."""

    assert uvloop.run(turns(1)) >= clients
    assert uvloop.run(turns(16)) <= clients / 8
