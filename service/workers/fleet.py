"""The workers of one server, as each of them sees the others.

Each worker listens on a Unix socket in a folder that only this user may enter. A question is JSON up to the end of the
stream, and so is its answer; one connection each. A server of one process is a fleet of one, which asks nobody.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from service.contract.errors import PlumblineError
from service.errors import NotReady

_PATIENCE = 60.0  # seconds; loading a model is among the questions


class FleetError(PlumblineError):
    """Another worker could not do what it was asked."""

    code = "worker"


class Fleet:
    """:param index: this worker's number, from 1.
    :param folder: where the sockets are; may be None if ``size`` is 1.
    """

    def __init__(self, index: int = 1, size: int = 1, folder: Path | None = None) -> None:
        self.index = index
        self.size = size
        self._folder = folder
        self._server: asyncio.Server | None = None

    async def listen(self, answer: Callable[[str, Any], Awaitable[Any]]) -> None:
        """Answer the others until :meth:`close`; ``answer`` takes a question and its argument."""
        if self._folder is None:
            return

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                question, argument = json.loads(await reader.read())
                try:
                    reply = {"answer": await answer(question, argument)}
                except PlumblineError as error:
                    reply = {"error": str(error)}
                writer.write(json.dumps(reply).encode())
                await writer.drain()
            except (ConnectionError, ValueError):  # who asked has gone
                return
            finally:
                writer.close()

        self._server = await asyncio.start_unix_server(serve, self._socket(self.index))

    async def ask(self, question: str, argument: Any = None) -> list[Any]:
        """The answers of all other workers, in their order.

        :raises NotReady: if one does not answer. :raises FleetError: if one could not do what it was asked.
        """
        others = [index for index in range(1, self.size + 1) if index != self.index]
        return await asyncio.gather(*(self._ask(index, question, argument) for index in others))

    async def close(self) -> None:
        """Answer no more."""
        if self._server is not None:
            self._server.close()

    def _socket(self, index: int) -> Path:
        assert self._folder is not None
        return self._folder / f"{index}.sock"

    async def _ask(self, index: int, question: str, argument: Any) -> Any:
        try:
            async with asyncio.timeout(_PATIENCE):
                reader, writer = await asyncio.open_unix_connection(self._socket(index))
                try:
                    writer.write(json.dumps([question, argument]).encode())
                    writer.write_eof()
                    reply = json.loads(await reader.read())
                finally:
                    writer.close()
        except (OSError, TimeoutError, ValueError) as error:
            raise NotReady(f"worker {index} of {self.size} does not answer now ({error!r}).") from error
        if "error" in reply:
            raise FleetError(f"worker {index} of {self.size}: {reply['error']}")
        return reply["answer"]
