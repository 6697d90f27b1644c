"""What the routes of one server share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from service.errors import NotReady
from service.models.predictor import Predictor
from service.models.watcher import RepositoryWatcher
from service.settings import ServiceSettings
from service.telemetry.metrics import Metrics
from service.workers.fleet import Fleet


@dataclass
class ServerState:
    """One object for each application; routes get it as :data:`Server`.

    :param stopping: whether the server is about to stop, and answers what it has.
    """

    settings: ServiceSettings
    metrics: Metrics
    fleet: Fleet
    predictor: Predictor
    watcher: RepositoryWatcher
    stopping: bool = False

    def why_not_ready(self) -> str | None:
        """What keeps this worker from answering predictions."""
        if self.stopping:
            return "the server is stopping."
        if not self.predictor.started:
            return "models are being loaded."
        return None if self.predictor.models else "every model was unloaded."

    async def check_ready(self) -> None:
        """:raises NotReady: if this worker or another one is not: the kernel may give a connection to any."""
        if reason := self.why_not_ready():
            raise NotReady(reason)
        if not await self.others_ready():
            raise NotReady("another worker is not ready.")

    async def others_ready(self) -> bool:
        """Whether every other worker can answer. :raises NotReady: if one does not say."""
        return all(await self.fleet.ask("ready"))


# FastAPI runs dependencies that are not coroutines on a thread of their own: two hops for reading an attribute.
async def server_state(request: Request) -> ServerState:
    """The state, as a FastAPI dependency."""
    return state_of(request)


def state_of(request: Request) -> ServerState:
    """The state, for handlers that no dependency is injected into."""
    state: ServerState = request.app.state.server
    return state


Server = Annotated[ServerState, Depends(server_state)]
